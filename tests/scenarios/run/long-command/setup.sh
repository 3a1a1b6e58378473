{
    echo 'version: 2.1'
    echo 'jobs: {build: {machine: true, resource_class: acme/long-command, steps: [{run: {name: long, command: "'
    seq -f '# %0100.0f\n' 3000
    echo 'echo the end"}}]}}'
    echo 'workflows: {main: {jobs: [build]}}'
} > .circleci/config.yml
git add --all
git commit --quiet -m config
