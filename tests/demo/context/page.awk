# A note → a page: the first line is its title, an empty line ends a paragraph.
BEGIN { print "<!doctype html>" }
NR == 1 { print "<title>" $0 "</title>\n<h1>" $0 "</h1>\n<p>"; next }
/^$/ { print "</p>\n<p>"; next }
{ print }
END { print "</p>" }
