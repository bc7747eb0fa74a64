#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# differ.pl - sequences of commands at random, for differ.sh: `differ.pl SEED` prints one, a command
# a line, img or io first.  The same seed gives the same sequence.
#
# Most of a sequence makes sense, so that much has happened to the images when it ends; now and then
# a number is nonsense, an option wrong or a file missing.
use strict;
use warnings;

srand($ARGV[0] // 1);

my $limit = one_of(1 << 16, 1 << 20, 1 << 20, 3 << 20);    # of a disk, in bytes
my (%format, %snapshots, %bitmaps, $made);

sub one_of { return $_[int rand @_] }
sub maybe { return rand() < $_[0] ? splice(@_, 1) : () }    # (CHANCE, WORDS)

# A number as users write it.
sub spelt {
	my ($n) = @_;
	my $how = int rand 8;
	return sprintf "0x%x", $n if $how == 0;
	return $n / 1024 . one_of("k", "K") if $how <= 2 && $n % 1024 == 0;
	return $n / 1048576 . "M" if $how == 3 && $n % 65536 == 0;
	return sprintf "%.3fk", $n / 1024 if $how == 4;
	return $n;
}

sub nonsense { return one_of(qw(-1 foo 1x 1.5 0x 1e3 8E 16E .5k 1. 1.k +1k 0512 1kk 7.999E 1G-512), "''") }

sub bytes {    # a multiple of something, below a limit
	my ($least) = @_;
	my $unit = one_of(1, 512, 512, 4096, 65536);
	return nonsense() if rand() < 0.03;
	return spelt($unit * ($least + int rand($limit / $unit)));
}
sub some { return rand() < 0.03 ? nonsense() : spelt(one_of(1, 512, 4096, 65536) * (1 + int rand 9)) }
sub size { return rand() < 0.03 ? nonsense() : spelt(512 * int rand($limit / 512)) }

sub image {
	my @all = grep { !$_[0] || $format{$_} eq $_[0] } sort keys %format;
	return rand() < 0.02 || !@all ? one_of("none", "''", ".") : one_of(@all);
}
sub typed {    # (OPTION, IMAGE): with its format, mostly
	my $f = $format{$_[1]} // "raw";
	return $f eq "raw" || rand() < 0.5 ? ($_[0], rand() < 0.98 ? $f : one_of("raw", "foo")) : ();
}

sub properties {
	my @o = (
		maybe(0.4, "cluster_size=" . one_of(512, "4k", 65536, "2M", "3k")),
		maybe(0.2, "compat=" . one_of("0.10", "1.1", "v3")),
		maybe(0.2, "refcount_bits=" . one_of(1, 8, 16, 64, 3)),
		maybe(0.1, "lazy_refcounts=" . one_of("on", "off", "yes", "maybe")),
		maybe(0.2, "extended_l2=on"),
		maybe(0.1, "compression_type=zstd"),
		maybe(0.2, "preallocation=" . one_of("metadata", "falloc", "full", "none")),
		maybe(0.02, "nonsense=1"));
	return @o ? ("-o", join ",", @o) : ();
}

sub named {
	my ($f) = @_;
	my $name = ("a" .. "z")[$made++ % 26] . "." . $f;
	$format{$name} = $f;
	return $name;
}

sub create {
	my $f = one_of("qcow2", "qcow2", "raw");
	my $below = %format && $f eq "qcow2" && rand() < 0.5 ? image() : undef;
	my @o = $f eq "qcow2" ? properties() : maybe(0.2, "-o", "preallocation=" . one_of("falloc", "full"));
	push @o, "-b", $below, "-F", $format{$below} // "raw" if defined $below;
	return ("img create -f $f @o", named($f), defined $below ? maybe(0.3, size()) : size());
}

my @requests = (
	sub { return ("write -P", one_of(1, 7, "0xaa", 256), bytes(0), some()) },
	sub { return ("write -z", maybe(0.4, "-u"), maybe(0.1, "-n"), bytes(0), some()) },
	sub { return ("write -c -P 9", spelt(65536 * int rand($limit / 65536)), "64k") },
	sub { return ("writev", maybe(0.2, "-f"), bytes(0), some(), some()) },
	sub { return ("aio_write -P 3", maybe(0.2, "-q"), bytes(0), some()) },
	sub { return ("read", maybe(0.5, "-P", one_of(0, 7)), bytes(0), some()) },
	sub { return ("read -v", bytes(0), one_of(16, 100)) },
	sub { return ("discard", bytes(0), some()) },
	sub { return ("alloc", bytes(0), maybe(0.5, some())) },
	sub { return ("truncate", maybe(0.2, "-m", one_of("full", "metadata")), size()) },
	sub { return one_of("map", "length", "info", "reopen -r", "flush", "aio_flush", "none", "read 1") },
);

sub requests {
	my $f = image();
	my @c = map { "-c '" . join(" ", one_of(@requests)->()) =~ s/'//gr . "'" } 1 .. 1 + int rand 3;
	return ("io", typed("-f", $f), maybe(0.03, one_of("-r", "-n", "-k", "-U", "-Z")), @c, $f);
}

sub snapshot {
	my $f = image("qcow2");
	my @had = @{$snapshots{$f} //= []};
	my $new = one_of("s1", "s2", "3");
	return ("img snapshot", one_of("-d", "-a", "-a"), one_of(@had, "none"), $f) if @had && rand() < 0.6;
	return ("img snapshot -l $f") if rand() < 0.2;
	push @{$snapshots{$f}}, $new;
	return ("img snapshot -c $new $f");
}

sub bitmap {
	my $f = image("qcow2");
	my $b = one_of("b0", "b1");
	return ("img bitmap", one_of("--add", "--add", "--add -g 4k", "--remove", "--clear", "--disable",
			"--enable", "--merge b0", "--add --clear", ""), $f, $b);
}

sub convert {
	my $f = image();
	my $to = one_of("qcow2", "raw");
	my @o = (maybe(0.2, "-c"), maybe(0.2, "-S", one_of(0, "4k", "64k", 1)), maybe(0.1, "-m", one_of(1, 4, 17)),
		maybe(0.1, "-W"), $to eq "qcow2" ? maybe(0.5, properties()) : ());
	return ("img convert", typed("-f", $f), "-O $to", @o, $f, named($to));
}

sub below {
	my ($f, $b) = (image("qcow2"), rand() < 0.4 ? "''" : image());
	return ("img rebase", maybe(0.2, "-u"), "-b", $b, $b eq "''" ? () : ("-F", $format{$b} // "raw"), $f);
}

my @rest = (
	sub { my $f = image(); return ("img resize -q", typed("-f", $f), maybe(0.5, "--shrink"),
			maybe(0.2, "--preallocation=" . one_of("full", "falloc")), $f, one_of("", "+", "-") . size()) },
	sub { return ("img commit", maybe(0.3, "-d"), image("qcow2")) },
	sub { my ($f, $g) = (image(), image()); return ("img compare", typed("-f", $f), typed("-F", $g), $f, $g) },
	sub { my $f = image(); return ("img dd", typed("-f", $f), "-O", "raw", "if=$f", "of=" . named("raw"),
			maybe(0.5, "bs=" . one_of(512, "4k", "1M", 0)), "count=" . int rand 30, maybe(0.3, "skip=" . int rand 30)) },
	sub { return ("img measure -O", one_of("qcow2", "raw"), maybe(0.3, properties()), "--size", size()) },
	sub { my $f = image(); return ("img info", typed("-f", $f), maybe(0.3, "--backing-chain"), $f) },
	sub { my $f = image(); return ("img check -q", typed("-f", $f), maybe(0.2, "-r all"), $f) },
	sub { return ("img amend -o", one_of("compat=0.10", "compat=1.1", "lazy_refcounts=on", "refcount_bits=8"), image("qcow2")) },
	sub { return ("img", one_of("bench -c 3 -w", "bench -c 3", "none", "create"), image()) },
);

print join(" ", create()), "\n" for 1 .. 2;
for (1 .. 2 + int rand 10) {
	my $what = one_of((\&requests) x 5, \&create, \&snapshot, \&bitmap, \&convert, \&below, (@rest) x 1);
	print join(" ", grep { $_ ne "" } $what->()), "\n";
}
