//! The graph of one workflow: names made unique, `requires` resolved, cycles refused, filters applied.
//! Works on drafts; knows nothing of YAML.

use super::draft::{Draft, HIDDEN, RequiresItem};
use crate::config::compiled::{RequiredStatus, Requirement, WorkflowJob};
use crate::config::diagnostic::Severity;
use crate::config::session::{NodeReader, cost};
use crate::config::values::Pos;
use std::collections::{BTreeMap, HashMap, HashSet};

type Edges = Vec<Vec<(usize, Vec<RequiredStatus>)>>;

/// Makes jobs of drafts. `most` bounds the number of requirements.
pub(crate) fn build(
    read: NodeReader<'_>,
    workflow: &str,
    drafts: Vec<Draft>,
    most: usize,
) -> Option<Vec<WorkflowJob>> {
    let names = final_names(&drafts);
    let edges = resolve(read, workflow, &drafts, &names, most)?;
    let order = match sort(workflow, &drafts, &names, &edges) {
        Ok(order) => order,
        Err((pos, message)) => {
            read.report.error(pos, message);
            return None;
        }
    };
    let (kept, edges) = filter(&drafts, edges, &order);
    let mut jobs = Vec::new();
    for (index, (draft, edges)) in drafts.into_iter().zip(edges).enumerate() {
        if !kept[index] {
            continue;
        }
        // Every requirement has the name of the other job in full.
        let bytes = edges.iter().map(|(target, _)| cost::text(&names[*target])).sum();
        if !read.budget.spend(draft.pos, 0, bytes) {
            return None;
        }
        let requires = edges
            .into_iter()
            .map(|(target, statuses)| Requirement { job: names[target].clone(), statuses })
            .collect();
        let written = std::iter::once(draft.label).chain(draft.alias.map(|alias| alias.to_string()));
        let job = draft.job.filter(|job| **job != *names[index]);
        jobs.push(WorkflowJob {
            name: names[index].clone(),
            written: written.filter(|name| *name != names[index]).collect(),
            job: job.map(|job| job.to_string()).unwrap_or_default(),
            kind: draft.kind,
            requires,
            contexts: draft.contexts,
            serial_group: draft.serial_group,
        });
    }
    Some(jobs)
}

/// Final names: those that occur several times are numbered in the order of the config.
fn final_names(drafts: &[Draft]) -> Vec<String> {
    let names: Vec<String> = drafts.iter().map(|draft| format!("{}{}", draft.prefix, draft.label)).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for name in &names {
        *count.entry(name).or_default() += 1;
    }
    let mut taken: HashSet<String> =
        count.iter().filter(|(_, count)| **count == 1).map(|(name, _)| (*name).to_owned()).collect();
    let mut next: HashMap<&str, usize> = HashMap::new();
    names
        .iter()
        .map(|name| {
            if count[&**name] == 1 {
                return name.clone();
            }
            let number = next.entry(name).or_insert(0);
            loop {
                *number += 1;
                let numbered = format!("{name}-{number}");
                if taken.insert(numbered.clone()) {
                    return numbered;
                }
            }
        })
        .collect()
}

fn resolve(
    read: NodeReader<'_>,
    workflow: &str,
    drafts: &[Draft],
    names: &[String],
    most: usize,
) -> Option<Edges> {
    let mut known = Names::default();
    let Names { labels, finals } = &mut known;
    for (index, draft) in drafts.iter().enumerate() {
        labels.entry((draft.space, &draft.label)).or_default().push(index);
        if let Some(alias) = draft.alias.as_deref().filter(|alias| *alias != draft.label) {
            labels.entry((draft.space, alias)).or_default().push(index);
        }
        finals
            .insert((draft.space, names[index].strip_prefix(&*draft.prefix).unwrap_or(&names[index])), index);
    }
    let mut complete = true;
    let mut edges: Edges = Vec::with_capacity(drafts.len());
    let mut total = 0;
    for (index, draft) in drafts.iter().enumerate() {
        let mut own = draft.links.clone();
        for wanted in &draft.wanted {
            if !read.budget.spend(wanted.pos, 0, 0) {
                return None;
            }
            match targets(read, workflow, drafts, index, wanted, &known) {
                Ok(targets) => {
                    total += targets.len();
                    if total > most {
                        let message =
                            format!("workflow `{workflow}` has more than the limit of {most} requirements");
                        read.report.error(wanted.pos, message);
                        return None;
                    }
                    own.extend(targets.into_iter().map(|target| (target, wanted.statuses.clone())));
                }
                Err(message) => {
                    read.report.error(wanted.pos, message);
                    complete = false;
                }
            }
        }
        let mut seen: HashMap<usize, Vec<Vec<RequiredStatus>>> = HashMap::new();
        own.retain(|(target, statuses)| {
            let known = seen.entry(*target).or_default();
            let new = !known.contains(statuses);
            if new {
                known.push(statuses.clone());
            }
            new
        });
        edges.push(own);
    }
    complete.then_some(edges)
}

/// Drafts by what they can be called in each space.
#[derive(Default)]
struct Names<'d> {
    /// Entries by label and by alias.
    labels: HashMap<(usize, &'d str), Vec<usize>>,
    /// Entries by final name.
    finals: HashMap<(usize, &'d str), usize>,
}

/// The drafts that an item of `requires` means.
fn targets(
    read: NodeReader<'_>,
    workflow: &str,
    drafts: &[Draft],
    index: usize,
    wanted: &RequiresItem,
    Names { labels, finals }: &Names<'_>,
) -> Result<Vec<usize>, String> {
    let draft = &drafts[index];
    let space = if draft.space == HIDDEN { 0 } else { draft.space };
    let key = (space, &*wanted.name);
    let empty = Vec::new();
    let found = labels.get(&key).unwrap_or(&empty);
    let mut others = found.iter().copied().filter(|other| drafts[*other].entry != draft.entry).peekable();
    if let Some(first) = others.peek().copied() {
        let entry = drafts[first].entry;
        let mut same = Vec::new();
        for other in others {
            if drafts[other].entry != entry {
                return Err(format!(
                    "{} in workflow `{workflow}` requires `{}`, which names several entries: give them different names",
                    draft.said(),
                    wanted.name
                ));
            }
            same.push(other);
        }
        return Ok(same);
    }
    if let Some(target) = finals.get(&key).filter(|target| **target != index) {
        return Ok(vec![*target]);
    }
    if !found.is_empty() {
        return Err(format!("{} in workflow `{workflow}` requires itself", draft.said()));
    }
    let elsewhere = if space == 0 { "" } else { " of the same job group" };
    // Neither itself nor what is nothing itself can be meant.
    let can_be_meant = |other: &usize| drafts[*other].is_defined && drafts[*other].entry != draft.entry;
    let mut known = Vec::new();
    for ((_, name), others) in labels.iter().filter(|((at, _), _)| *at == space) {
        let is_own = |other: &&usize| drafts[**other].is_named || drafts[**other].label != *name;
        let others = others.iter().filter(|other| can_be_meant(other)).filter(is_own);
        let entries: HashSet<usize> = others.map(|other| drafts[*other].entry).collect();
        // A name that several entries share names none of them: they are known by numbered names.
        if entries.len() == 1 {
            known.push(*name);
        }
    }
    let numbered = finals.iter().filter(|(key, other)| {
        key.0 == space && !labels.contains_key(*key) && drafts[**other].is_named && can_be_meant(other)
    });
    known.extend(numbered.map(|((_, name), _)| *name));
    let what = if known.is_empty() { "other jobs" } else { "jobs" };
    let choices = read.report.choices(Severity::Error, wanted.pos, what, &wanted.name, known);
    Err(format!(
        "{} in workflow `{workflow}` requires unknown job `{}`{elsewhere}{choices}",
        draft.said(),
        wanted.name
    ))
}

/// Edges of a draft, the inside of a job group included.
fn predecessors<'e>(drafts: &'e [Draft], edges: &'e Edges, index: usize) -> impl Iterator<Item = usize> + 'e {
    let members = drafts[index].members.clone().unwrap_or(0..0);
    edges[index].iter().map(|(target, _)| *target).chain(members)
}

/// An order in which every job comes after what it requires; a cycle is an error.
fn sort(
    workflow: &str,
    drafts: &[Draft],
    names: &[String],
    edges: &Edges,
) -> Result<Vec<usize>, (Pos, String)> {
    let mut waiting: Vec<usize> =
        (0..drafts.len()).map(|index| predecessors(drafts, edges, index).count()).collect();
    let mut dependants: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for index in 0..drafts.len() {
        for target in predecessors(drafts, edges, index) {
            dependants[target].push(index);
        }
    }
    let mut order: Vec<usize> = (0..drafts.len()).filter(|index| waiting[*index] == 0).collect();
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        next += 1;
        for dependant in &dependants[index] {
            waiting[*dependant] -= 1;
            if waiting[*dependant] == 0 {
                order.push(*dependant);
            }
        }
    }
    let Some(start) = (0..drafts.len()).find(|index| waiting[*index] > 0) else { return Ok(order) };
    // Every job left over requires one left over, so that this walk ends in a cycle.
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let Some(target) = predecessors(drafts, edges, last).find(|target| waiting[*target] > 0) else {
            break;
        };
        if let Some(first) = path.iter().position(|index| *index == target) {
            path.drain(..first);
            path.push(target);
            break;
        }
        path.push(target);
    }
    let pos = drafts[path[0]].pos;
    // A cycle through a job group is one of the group: its inner jobs have no name that the author knows.
    if path.iter().any(|index| drafts[*index].space == HIDDEN) {
        path.retain(|index| drafts[*index].space == 0);
        if path.first() != path.last() {
            path.extend(path.first().copied());
        }
    }
    let chain: Vec<_> = path.iter().take(20).map(|index| format!("`{}`", names[*index])).collect();
    Err((pos, format!("workflow `{workflow}` has a cycle of requirements: {}", chain.join(" requires "))))
}

/// Drops jobs that their filters do not keep, and jobs that required only such jobs.
fn filter(drafts: &[Draft], mut edges: Edges, order: &[usize]) -> (Vec<bool>, Edges) {
    let mut kept: Vec<bool> = drafts.iter().map(|draft| draft.kept).collect();
    let mut required: BTreeMap<usize, HashSet<usize>> = BTreeMap::new();
    for index in order.iter().copied() {
        let before = edges[index].len();
        edges[index].retain(|(target, _)| kept[*target]);
        if before > 0 && edges[index].is_empty() {
            kept[index] = false;
        }
        if let Some(members) = drafts[index].members.clone() {
            // The end of a group waits for the members that no other member waits for.
            let space = drafts.get(members.start).map_or(HIDDEN, |member| member.space);
            let inner = required.entry(space).or_default();
            let leaves: Vec<_> =
                members.clone().filter(|member| kept[*member] && !inner.contains(member)).collect();
            if leaves.is_empty() {
                kept[index] = false;
                if let Some(beginning) = members.start.checked_sub(1) {
                    kept[beginning] = false;
                }
            }
            edges[index].extend(leaves.into_iter().map(|leaf| (leaf, vec![RequiredStatus::Success])));
        }
        if kept[index] && drafts[index].space != 0 {
            let inner = required.entry(drafts[index].space).or_default();
            inner.extend(edges[index].iter().map(|(target, _)| *target));
        }
    }
    (kept, edges)
}
