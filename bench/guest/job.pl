# SPDX-License-Identifier: Apache-2.0
# What scripts do: hashes, regular expressions, sorting, string building.
use strict;
use warnings;

for (1 .. $ARGV[0]) {
	open(my $in, '<', '/tmp/data.small') or die $!;
	my (%seen, $text);
	read($in, $text, 200000);
	$seen{lc $1}++ while $text =~ /(\w{2,})/g;
	my @top = (sort { $seen{$b} <=> $seen{$a} || $a cmp $b } keys %seen)[0 .. 4];
	my $out = '';
	for my $line (split /\n/, $text) {
		$line =~ s/^(\s*)(\w+)\s*=\s*(.*)$/$1$3 -> $2/;
		$out .= sprintf("%-40s|%d\n", substr($line, 0, 40), length $line);
	}
	print "@top ", length $out, "\n";
}
