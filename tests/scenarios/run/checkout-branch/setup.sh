git checkout --quiet -b feature/x
echo of the branch > file
git -c protocol.file.allow=always submodule --quiet add "$PWD" sub
git add --all
git commit --quiet -m "on the branch"
git checkout --quiet main
