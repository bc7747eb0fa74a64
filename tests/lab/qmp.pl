#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# qmp.pl - speaks QMP with a machine when its guest has said certain lines: see guest/monitor.sh.
#
# usage: qmp.pl SOCKET SERIAL-LOG; prints the answers, each after a word that says which it is
use strict;
use warnings;
use IO::Socket::UNIX;

my ($path, $serial) = @ARGV;
my $s;

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
	my ($as, $command) = @_;
	print $s "$command\n";
	while (<$s>) {
		last if /"return"|"error"/;
	}
	print "$as $_";
}

$SIG{ALRM} = sub { die "the guest did not come so far\n" };
alarm 900;
until_said("written with the cache on");
$s = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";
$s->autoflush(1);
<$s>;
ask("hello", '{"execute": "qmp_capabilities"}');
ask("before", '{"execute": "query-block"}');
ask("set", '{"execute": "x-block-set-write-cache",
	"arguments": {"device": "drive0", "enable": false}}');
ask("after", '{"execute": "query-block"}');
until_said("switched on");
ask("then", '{"execute": "query-block"}');
