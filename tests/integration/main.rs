//! The integration tests: they drive the built program from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

// `runlet admin` against a real control plane.
#[cfg(feature = "server")]
mod admin;
// The public APIs, read by an independent client.
#[cfg(feature = "server")]
mod api;

#[cfg(feature = "server")]
mod archives;
// The rules of a claim over the real API, with a runner that the test plays itself.
#[cfg(feature = "server")]
mod claims;
// Cleaning up after jobs.
mod cleanup;
// Needs of public clients: builds of version 1.1, downloads, insights, names and ids.
#[cfg(feature = "server")]
mod clients;
// The config compiler against its corpus, and against damaged configs.
#[cfg(feature = "server")]
mod config;
// Hundreds of clients that hold their connections.
#[cfg(feature = "server")]
mod connections;
// A fake Kubernetes cluster.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod cluster;
// The container runner in that cluster.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod container;
// Tasks for containers, with a runner that the test plays.
#[cfg(feature = "server")]
mod containers;
// The program inside a pod.
#[cfg(feature = "server")]
mod pods;
// The fake cluster, held to what a real one said.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod recorded;
// The cost of a container runner, by hand.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod pods_bench;
// Images, clusters and classes that make it hard for the container runner.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod pods_hard;
// Two container runners in a cluster that breaks by dice.
#[cfg(all(feature = "server", feature = "kubernetes"))]
mod pods_faults;

// The limits of the config compiler.
#[cfg(feature = "server")]
mod config_limits;
// The beginning of a task, its fence, and what is delivered late.
mod beginning;
// Answers of something in between, and refusals in the middle of a task.
mod between;
// Prefixes that end before their task agent.
mod prefixes;
// A cancel while output hangs.
mod cancel;
// `runlet exec`: the whole road.
#[cfg(feature = "server")]
mod exec;
// How runs of `runlet exec` end, and why.
#[cfg(feature = "server")]
mod exec_ends;
// `runlet exec` every day: what ends it, what it asks for, what it keeps.
#[cfg(feature = "server")]
mod exec_habit;
// `runlet exec` in repositories that are set up in ways of their own.
#[cfg(feature = "server")]
mod exec_repositories;
// `runlet exec` of a setup config.
#[cfg(feature = "server")]
mod exec_setup;
// `runlet exec` at a terminal.
#[cfg(feature = "server")]
mod exec_terminal;
// Bad lines, and processes that are killed in the middle.
#[cfg(feature = "server")]
mod faults;
// Output of a step, followed while it comes.
#[cfg(feature = "server")]
mod follow;
// From a push to a pipeline.
#[cfg(feature = "server")]
mod forge;
// From a push to a result, case by case.
#[cfg(feature = "server")]
mod forge_cases;
// Pushes that are told late, or before they can be read.
#[cfg(feature = "server")]
mod forge_order;
// Forges that are down for an hour, and looks at refs that cost them nothing.
#[cfg(feature = "server")]
mod forge_outages;
// Tokens that are refused, odd branches, authors who would approve their own changes.
#[cfg(feature = "server")]
mod forge_strangers;
// Webhooks that are made at a forge, and secrets that it has made.
#[cfg(feature = "server")]
mod forge_hooks;
// Pushes of the same commits, again and again.
#[cfg(feature = "server")]
mod forge_pushes;
// Pull requests and pushes that tell of the same commits.
#[cfg(feature = "server")]
mod forge_pulls;
// Promises that hold for every forge.
#[cfg(feature = "server")]
mod forge_promises;
// Tokens of organisations for their forge.
#[cfg(feature = "server")]
mod forge_tokens;
// What is said where git or an API lets nobody in.
#[cfg(feature = "server")]
mod forge_access;
// Requests of a forge to whoever calls it.
#[cfg(feature = "server")]
mod forge_paces;
// Mistakes that are refused at once, and what is no reason to.
#[cfg(feature = "server")]
mod forge_refusals;
// Events from forges, and calls to them, that must harm nothing else.
#[cfg(feature = "server")]
mod forge_harm;
// GitHub Apps: words that are signed, tokens that are got by them, and what goes by these.
#[cfg(feature = "server")]
mod github_app;
// From a result back to a forge.
#[cfg(feature = "server")]
mod forge_back;
// A full disk under the control plane.
#[cfg(feature = "server")]
mod full_disk;
// A full disk under a runner.
#[cfg(feature = "server")]
mod full_host;
// Hosts that withhold what a runner is used to.
mod hostile;
// Remains of tasks, whoever was killed.
mod leftovers;
// A control plane that is killed again and again.
#[cfg(feature = "server")]
mod kills;
// Things that a job should not tell, hold up or reach.
#[cfg(feature = "server")]
mod leaks;
// Findings of `runlet doctor` on hosts with planted faults.
mod doctor;
// Deliveries of forges while the control plane is killed.
#[cfg(feature = "server")]
mod deliveries;
// Runners as operators see them from the control plane; its log and its metrics.
#[cfg(feature = "server")]
mod fleet;
// The machine runner: settings, log, claims, drain, lost task agents, restarts.
mod machine;
// Many pipelines through many runners, and what they leave.
#[cfg(feature = "server")]
mod many;
// People, personal tokens, and what who is no administrator may do.
#[cfg(feature = "server")]
mod people;
// The whole road over TLS, with a runner of any architecture.
#[cfg(feature = "server")]
mod road;
// Decisions while nobody is heard: calls overtaken by an end, retries, fences, restored backups.
#[cfg(feature = "server")]
mod outages;
// The orbs that are built in, archives of orbs, and what packs them.
#[cfg(feature = "server")]
mod orbs;
// Repositories that let in only whoever has a key or a token.
#[cfg(feature = "server")]
mod private;
// Why a job did not run, or waits, in every API and on the terminal.
#[cfg(feature = "server")]
mod reasons;
// Calls that would be misunderstood.
#[cfg(feature = "server")]
mod refusals;
// Reading configs from repositories.
#[cfg(feature = "server")]
mod repositories;
// Folders with a config and its expected outcome.
#[cfg(feature = "server")]
mod scenarios;
// Variables and contexts: sealed, handed out, masked.
#[cfg(feature = "server")]
mod secrets;
// Screens and remains of `runlet exec`, to the letter.
#[cfg(feature = "server")]
mod transcripts;
// The control plane with real machine runners.
#[cfg(feature = "server")]
mod server;
// Messages to a service manager, and from it; upgrades during a task.
mod service;
// Output on its way: spools that are full, ...
mod spool;
// ... those that a step empties or removes, ...
mod spool_harm;
// ... and those that a killed task agent has left.
mod spool_rest;
// The data folder: checked, backed up, restored.
#[cfg(feature = "server")]
mod storage;
// Quotas and retention, beside what runs.
#[cfg(feature = "server")]
mod keeping;
// Tests of a job, shared among its parallel nodes.
mod splitting;
// A control plane that is told to stop.
#[cfg(feature = "server")]
mod stop;
// Submodules in a working directory that jobs use one after the other.
#[cfg(feature = "server")]
mod submodules;
// Status of a runner, and the gates that keep it from claiming.
mod status;
// Parts that the modules share: a fake control plane, certificates, a proxy, the runner as a process.
mod support;
// Private authorities, bad certificates, client certificates, proxies.
mod trust;
// The web page.
#[cfg(feature = "server")]
mod web;
