//! `runlet admin`: resource classes, tokens, people, projects, variables and contexts over the API.
//!
//! Everything goes through the API with a personal token, so it works from any host. Secrets come from
//! standard input, a file or the environment, never from arguments: those are visible to others.

mod access;
mod app;
mod arguments;
mod audit;
mod context;
mod fleet;
mod follow;
mod forge;
mod forge_token;
mod people;
mod pipeline;
mod project;
mod remote;
mod runner;
mod storage;
mod table;
mod task;
mod verb;

use crate::outcome::{Failure, Outcome, print};
use crate::terminal::plain;
use arguments::Arguments;
use remote::Remote;
use serde_json::Value;
use std::ffi::OsString;
use verb::{UnknownVerb, VerbAnswer};

/// `runlet admin --help`.
pub const HELP: &str = "\
Administer a control plane over its API.

Usage: runlet admin NOUN VERB [ARGUMENTS] [OPTIONS]

Runners
  resource-class create NAMESPACE/NAME [--description TEXT] [--budget DURATION] [--unsafe-retries]
  resource-class set-budget NAMESPACE/NAME [DURATION]    how long a job may be out of reach; 15m unless given
  resource-class set-unsafe-retries NAMESPACE/NAME on|off
                                                     a job that began runs again, 3 times at most, when its runner
                                                     is lost: for jobs that may run twice
  resource-class set-untrusted NAMESPACE/NAME on|off  whether jobs of pull requests from forks may run on it
  resource-class set-wait NAMESPACE/NAME [DURATION]  how long a job may wait for a runner; for ever unless given
  resource-class set-begin NAMESPACE/NAME [DURATION]
                                        how long a claimed task may take to begin; 10 minutes unless given
  resource-class list [--namespace NAMESPACE]
  resource-class delete NAMESPACE/NAME [--force]     --force: with its tokens, and ends what waits for it
  token create NAMESPACE/NAME [--nickname TEXT]      prints the token, once
  token list NAMESPACE/NAME
  token delete ID
  runner list [NAMESPACE/NAME]                       who is there, what runs, and why a class waits
  runner pause NAMESPACE/NAME [RUNNER]               gives the class, or one of its runners, no tasks
  runner resume NAMESPACE/NAME [RUNNER]              lets it go on
  runner config NAMESPACE/NAME [--name RUNNER]       prints a settings file with a new token
  task held                                          what waits after `runlet server --restored`
  task release ID                                    lets it go on
  task end ID                                        ends it
  storage list                                       what fills the disk, by project and kind

People
  user create LOGIN [--name TEXT] [--admin]          --admin lets them change what is set up
  user list
  user delete LOGIN                                  with their tokens
  personal-token create LOGIN [--label TEXT]         prints the token, once
  personal-token list [LOGIN]                        your own, unless you name somebody
  personal-token delete ID

Projects; SLUG is VCS/ORGANIZATION/REPOSITORY, such as gh/acme/app
  project create SLUG [--repository URL] [--default-branch NAME]
  project list [--organization VCS/ORGANIZATION]
  project set-repository SLUG [URL] [--default-branch NAME]
  project delete SLUG                                with its pipelines and variables
  project settings SLUG [NAME=VALUE]...              shows or changes what is built: pull requests, forks, paths
  project connect SLUG [--forge KIND] [--api URL] [--poll DURATION|never] [--with-token | --with-secret]
                       [--rotate-secret] [--repository-id ID] [--repository-name NAME] [--set-hook] [--delete-token]
                                                     says where its forge sends webhooks, and with which secret;
                                                     --with-token: reads a token for its API from standard input;
                                                     --with-secret: the same for a secret that the forge has made, such
                                                     as a signing token of GitLab;
                                                     --set-hook: makes the webhook there by that token;
                                                     --delete-token: the project goes by none of its own any more
  project disconnect SLUG
  project access SLUG [--new-key | --with-key | --with-token [--username NAME] [--bearer] | --with-known-hosts]
                      [--delete-key FINGERPRINT] [--delete-token]
                                                     shows or changes what lets git into its repository: a key for
                                                     ssh, made here or given, a token for HTTPS, known hosts; what is
                                                     given comes from standard input
  project deliveries SLUG [--replay ID]              what came from the forge, and what became of it
  project statuses SLUG                              what the forge was told of commits, and what is in the way
  project hook SLUG                                  prints the post-receive hook of a plain git server (--forge git)
  variable set SLUG NAME                             the value is read from standard input
  variable list SLUG
  variable delete SLUG NAME
  pipeline trigger SLUG [--branch NAME | --tag NAME] [--config FILE] [--parameter NAME=VALUE]... [--follow]
  pipeline show ID                                   its jobs, with the reasons of those that wait or did not run
  pipeline follow ID                                 prints it as it happens, until it has ended

Contexts; OWNER is VCS/ORGANIZATION
  context create OWNER NAME
  context list OWNER
  context show OWNER NAME                            its variables and restrictions
  context delete OWNER NAME
  context set OWNER NAME VARIABLE                    the value is read from standard input
  context unset OWNER NAME VARIABLE
  context restrict OWNER NAME --project SLUG | --rule EXPRESSION | --group ID
  context unrestrict OWNER NAME ID

Tokens of organizations for their forge; OWNER is VCS/ORGANIZATION
  forge-token set OWNER [--forge KIND] [--api URL] [--username NAME] [--for-jobs]
                                                     reads a token from standard input that the projects of OWNER go by
                                                     that have none of their own, at the forge whose API is at URL only;
                                                     --for-jobs: jobs get it for checkout, but those of forks
  forge-token list                                   without the tokens
  forge-token show OWNER                             says which projects go by it
  forge-token delete OWNER

GitHub Apps; OWNER is a SLUG, or VCS/ORGANIZATION for all of its projects that have none of their own
  github-app set OWNER ID [--installation ID]        its private key is read from standard input
  github-app show OWNER                              says what it may do, for a project
  github-app delete OWNER

Audit log
  audit [list] [--user LOGIN] [--limit N]            who changed what is set up, when, from where; newest first

Options
  --server URL         the control plane; also by RUNLET_SERVER
  --token-file FILE    holds the personal token; also by RUNLET_TOKEN (the token itself)
  --ca-file FILE       certificate authority to trust besides the system's, PEM; also by RUNLET_CA_FILE
  --exact              `set` keeps the last line end of the value, which is dropped otherwise
  --json               print what the API answers
  --help

Exit codes: 0 done, 2 wrong usage, 3 the token is not accepted, 4 refused, 5 not found, 7 the config is not
valid, 1 anything else, such as a pipeline that was followed and failed.
";

/// Runs `runlet admin` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    let Some(mut arguments) = Arguments::parse(args)? else { return print(HELP) };
    let noun = arguments.word("NOUN")?;
    let verb = match noun.as_str() {
        "audit" => arguments.maybe_word().unwrap_or_else(|| "list".to_owned()),
        _ => arguments.word("VERB")?,
    };
    let act = match noun.as_str() {
        "resource-class" => runner::class(&verb),
        "token" => runner::token(&verb),
        "runner" => fleet::runner(&verb),
        "task" => task::task(&verb),
        "storage" => storage::storage(&verb),
        "user" => people::user(&verb),
        "personal-token" => people::token(&verb),
        "project" => project::project(&verb),
        "variable" => project::variable(&verb),
        "pipeline" => pipeline::pipeline(&verb),
        "context" => context::context(&verb),
        "forge-token" => forge_token::forge_token(&verb),
        "github-app" => app::app(&verb),
        "audit" => audit::audit(&verb),
        _ => {
            return Err(Failure::usage(format!(
                "unknown noun `{noun}` (known: resource-class, token, runner, task, storage, user, personal-token, project, variable, pipeline, context, forge-token, github-app, audit); see `runlet admin --help`"
            )));
        }
    };
    let act = act.map_err(|UnknownVerb { known }| {
        let known = known.join(", ");
        Failure::usage(format!("unknown verb `{noun} {verb}` (known: {known}); see `runlet admin --help`"))
    })?;
    let (json, remote) = (arguments.flag("json"), Remote::new(&mut arguments)?);
    arguments.command = format!("{noun} {verb}");
    // Failures quote what the control plane answers, and that quotes others.
    let clean = |failure: Failure| Failure { message: plain(&failure.message), ..failure };
    match act(&mut arguments, &remote).map_err(clean)? {
        VerbAnswer::Failed(failure, answer) => {
            if json {
                print(&pretty(&answer))?;
            }
            Err(clean(failure))
        }
        VerbAnswer::Partly(text, answer, failure) => {
            print(&if json { pretty(&answer) } else { format!("{}\n", plain(&text)) })?;
            Err(clean(failure))
        }
        VerbAnswer::Done(_, answer) | VerbAnswer::Secret(_, answer) if json => print(&pretty(&answer)),
        VerbAnswer::List(_, items) if json => print(&pretty(&Value::Array(items))),
        VerbAnswer::Done(text, _) => print(&format!("{}\n", plain(&text))),
        VerbAnswer::Secret(text, answer) => {
            // The secret alone is on standard output, so that it can go into a file.
            eprintln!("{text}");
            print(&format!("{}\n", answer["token"].as_str().unwrap_or_default()))
        }
        VerbAnswer::List(table, _) => print(&table.render()),
        VerbAnswer::Shown(code) => Ok(code),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
