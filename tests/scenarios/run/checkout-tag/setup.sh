echo tagged > file
git add --all
git commit --quiet -m tagged
git tag -a v1.0 -m "the tag"
echo later > file
git commit --quiet -am later
