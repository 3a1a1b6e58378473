for n in one two; do
    echo $n > file
    git add --all
    git commit --quiet -m $n
done
