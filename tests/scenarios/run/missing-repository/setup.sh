mkdir -p .circleci
sed -i 's|- checkout|- run: rm -rf REPO\n      - checkout|; s|REPO|'"$PWD"'|' .circleci/config.yml
git commit --quiet -am "takes itself away"
