#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# qmp.pl - speaks QMP with a machine, step by step.
#
# usage: qmp.pl SOCKET SERIAL-LOG STEP...
#
# A step is "?WORDS": wait until the guest has said that, a regular expression, on its serial port;
# or "NAME COMMAND ARGUMENTS", the last as the inside of a JSON object, or left out: the answer is
# printed behind the name.
use strict;
use warnings;
use IO::Socket::UNIX;

my ($path, $serial, @steps) = @ARGV;
my $s;
$| = 1;

sub until_said {
	my ($words) = @_;
	while (1) {
		if (open my $f, "<", $serial) {
			return if grep { /$words/ } <$f>;
		}
		sleep 1;
	}
}

sub ask {
	my ($as, $command, $arguments) = @_;
	print $s qq({"execute": "$command", "arguments": {@{[$arguments // ""]}}}\n);
	while (<$s>) {
		last if /"return"|"error"/;
	}
	print "$as ", $_ // "no answer\n";
}

$SIG{ALRM} = sub { die "the guest did not come so far\n" };
alarm 900;
for my $step (@steps) {
	if ($step =~ /^\?(.*)/) {
		until_said($1);
		next;
	}
	if (!$s) {
		$s = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";
		$s->autoflush(1);
		<$s>;
		ask("hello", "qmp_capabilities");
	}
	ask(split " ", $step, 3);
}
