echo first > file
git add --all
git commit --quiet -m first
