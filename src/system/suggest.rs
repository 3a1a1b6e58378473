//! The word that somebody meant who mistyped it.

/// The choice that a typing mistake could have made into `name`.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Bounded: long names are no typing mistakes, and the distance costs their product.
    if name.len() > 64 || known.len() > 1000 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    known
        .iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count();
            *distance <= 1 + length / 4 && distance * 2 <= length
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two texts; swapping neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found() {
        assert_eq!(nearest("biuld", &["build", "test"]), Some("build"));
        assert_eq!(nearest("commnd", &["command", "name"]), Some("command"));
        assert_eq!(nearest("deploy", &["build", "test"]), None);
        assert_eq!(distance("abc", "acb"), 1);
    }
}
