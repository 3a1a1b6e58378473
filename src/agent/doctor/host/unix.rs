//! The part of the look that is of Unix, for the most of Linux.

use crate::agent::gates::bytes_text;
use crate::agent::settings::Settings;
use crate::protocol::finding::{FindingLevel, Findings};
use crate::system::os::{Access, access};
use crate::system::proc;
use rustix::process::{Resource, geteuid, getrlimit};
use std::fs;
use std::path::Path;

/// Opened files, and processes, that builds may want.
const LEAST_FILES: u64 = 4096;
const LEAST_PROCESSES: u64 = 4096;

/// Looks at the user of the runner.
pub(super) fn user(settings: &Settings, found: &mut Findings) {
    if geteuid().is_root() && settings.command_prefix.is_empty() {
        let text = "the runner is root, and so are its jobs";
        found.add(
            "user",
            FindingLevel::Note,
            text,
            "give it a user of its own, or its jobs by runner.command_prefix",
        );
    }
}

/// Looks at limits, control groups and the system.
pub(super) fn look(settings: &Settings, found: &mut Findings) {
    limits(found);
    groups(settings, found);
    system(found);
}

fn limits(found: &mut Findings) {
    let hard = |resource| getrlimit(resource).maximum;
    let before = found.0.len();
    // The soft limit of opened files is 1024 nearly everywhere, and programs raise it to the hard one.
    if let Some(files) = hard(Resource::Nofile).filter(|files| *files < LEAST_FILES) {
        let text = format!("a process may open {files} files");
        found.add("limits", FindingLevel::Warn, text, "LimitNOFILE=1024:524288 in the unit, or limits.conf");
    }
    if let Some(count) =
        hard(Resource::Nproc).filter(|count| *count < LEAST_PROCESSES && !geteuid().is_root())
    {
        let text = format!("the user may have {count} processes");
        found.add("limits", FindingLevel::Warn, text, "LimitNPROC= in the unit, or limits.conf");
    }
    if let Some(bytes) = getrlimit(Resource::Fsize).current {
        let text = format!("files may have {bytes} bytes");
        found.add("limits", FindingLevel::Warn, text, "LimitFSIZE=infinity in the unit, or limits.conf");
    }
    if let Some(bytes) = getrlimit(Resource::As).current {
        let text = format!("a process may have {} of addresses", bytes_text(bytes));
        found.add(
            "limits",
            FindingLevel::Note,
            text,
            "Go, Java and sanitizers reserve more than they use: LimitAS=infinity",
        );
    }
    if found.0.len() == before {
        found.fine("limits", "files, processes and sizes are not limited too much");
    }
}

/// Control groups: what can be had, and how far they limit.
fn groups(settings: &Settings, found: &mut Findings) {
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else {
        let text = "/proc is not mounted, or has no control groups";
        let advice = "mount /proc: leftovers of jobs cannot be found without it";
        let level = if proc::is_mounted() { FindingLevel::Note } else { FindingLevel::Warn };
        return found.add("control_groups", level, text, advice);
    };
    let mounted = Path::new("/sys/fs/cgroup");
    let is_second = mounted.join("cgroup.controllers").exists();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let folder = mounted.join(path.trim_start_matches('/'));
    let is_ours = access(folder.join("cgroup.procs"), Access::WRITE_OK).is_ok()
        && access(&folder, Access::WRITE_OK).is_ok();
    match (is_second, is_ours) {
        (true, true) => {
            found.fine("control_groups", "the unified hierarchy, and the own group may be divided")
        }
        (true, false) if settings.quotas.is_any() => {
            let text = "runner.quota is set, and the own control group may not be divided";
            found.add("control_groups", FindingLevel::Fail, text, "Delegate=yes in the unit");
        }
        (false, _) if settings.quotas.is_any() => {
            let text = "runner.quota is set, and there is no unified hierarchy of control groups";
            found.add(
                "control_groups",
                FindingLevel::Fail,
                text,
                "boot with systemd.unified_cgroup_hierarchy=1, or remove runner.quota",
            );
        }
        _ => {
            let text = "the own control group may not be divided: leftovers of jobs are found by descent";
            found.add("control_groups", FindingLevel::Note, text, "Delegate=yes in the unit");
        }
    }
    for group in folder.ancestors().take_while(|group| group.starts_with(mounted)) {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        if let Some(most) = number("pids.max").filter(|most| *most < LEAST_PROCESSES) {
            let text = format!("at most {most} processes (`{}`)", group.join("pids.max").display());
            found.add("limits", FindingLevel::Warn, text, "TasksMax=16384 in the unit");
        }
        if let Some(most) = number("memory.max") {
            let text = format!(
                "{} of memory for all together (`{}`)",
                bytes_text(most),
                group.join("memory.max").display()
            );
            found.add("memory", FindingLevel::Note, text, "");
        }
        let kills = read("memory.events").and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        });
        if let Some(kills) = kills.filter(|kills| *kills > 0 && group == folder) {
            let text = format!("{kills} processes were killed here for want of memory");
            found.add(
                "memory",
                FindingLevel::Warn,
                text,
                "give the unit more memory, or builds fewer processes",
            );
        }
    }
}

fn system(found: &mut Findings) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let arch = std::env::consts::ARCH;
    found.fine("system", format!("Linux {release}, {arch}"));
    let says = |path: &str| {
        fs::read_to_string(path).ok().map(|text| text.trim_end_matches(['\n', '\0']).trim().to_owned())
    };
    if says("/proc/sys/crypto/fips_enabled").as_deref() == Some("1") {
        found.add(
            "fips",
            FindingLevel::Note,
            "the kernel is in FIPS mode",
            "TLS here is ring's, which is not validated",
        );
    }
    if says("/sys/fs/selinux/enforce").as_deref() == Some("1") {
        let domain = says("/proc/self/attr/current").unwrap_or_default();
        if domain.contains(":init_t:") {
            let text = format!("SELinux is enforcing, and the runner is in `{domain}`");
            found.add(
                "selinux",
                FindingLevel::Warn,
                text,
                "move the program to /usr/bin and `restorecon` it",
            );
        } else {
            found.add(
                "selinux",
                FindingLevel::Note,
                format!("SELinux is enforcing ({domain})"),
                "refusals: `ausearch -m AVC -ts recent`",
            );
        }
    }
    if let Some(lockdown) = says("/sys/kernel/security/lockdown").filter(|text| !text.contains("[none]")) {
        found.add("lockdown", FindingLevel::Note, format!("the kernel is locked down: {lockdown}"), "");
    }
    if says("/proc/self/status").is_some_and(|text| text.contains("NoNewPrivs:\t1")) {
        found.add(
            "privileges",
            FindingLevel::Note,
            "nothing here may get other rights",
            "sudo and rootless containers fail",
        );
    }
    containers(found);
}

/// Looks for the needs of rootless containers, where there is a tool for them.
fn containers(found: &mut Findings) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if geteuid().is_root() || !(has("podman") || has("buildah") || has("dockerd-rootless.sh")) {
        return;
    }
    let (uid, user) = (geteuid().as_raw().to_string(), std::env::var("USER").unwrap_or_default());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let is_ours = |line: &str| {
            line.split(':').next().is_some_and(|name| name == uid || !user.is_empty() && name == user)
        };
        if !text.lines().any(is_ours) {
            let name = if user.is_empty() { &uid } else { &user };
            let advice = format!("add the line `{name}:100000:65536` to it");
            found.add(
                "containers",
                FindingLevel::Warn,
                format!("`{file}` has no line for `{name}`"),
                &advice,
            );
        }
    }
    if !has("newuidmap") {
        found.add(
            "containers",
            FindingLevel::Warn,
            "there is no newuidmap",
            "install the package uidmap or shadow-utils",
        );
    }
}
