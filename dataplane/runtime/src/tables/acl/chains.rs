//! Which groups are asked next once one is: what ENIs bind in a row.
//!
//! Five stages are five look-ups, each in memory of its own. When the first of them begins, the groups
//! of the others are known from the ENIs' rows, so their memory is asked for at once. It is a hint:
//! answers do not depend on it.

use std::collections::BTreeMap;

/// Groups an ENI binds for one direction and family, in the order of stages; 0 for none.
pub type Binding = [u32; 5];

/// For each group those whose memory is to be asked for with its own.
pub(super) type Followers = BTreeMap<u32, Vec<u32>>;

/// Who follows whom.
///
/// A group follows another when it comes behind it in every binding that has that one, so nothing is
/// asked for in vain. It is asked for with the first such group only: of 1, 2, 3 in a row 2 and 3 are
/// with 1, and nothing is with 2.
pub(super) fn followers(bindings: &[Binding]) -> Followers {
    let rows: Vec<Vec<u32>> = bindings.iter().map(groups).collect();
    let mut behind = Followers::new();
    for groups in &rows {
        for (at, group) in groups.iter().enumerate() {
            let rest = &groups[at + 1..];
            behind
                .entry(*group)
                .and_modify(|known| known.retain(|group| rest.contains(group)))
                .or_insert_with(|| rest.to_vec());
        }
    }
    let mut asked = Followers::new();
    for groups in &rows {
        for (at, group) in groups.iter().enumerate() {
            for next in &behind[group] {
                let before = groups[..at]
                    .iter()
                    .any(|group| behind[group].contains(next));
                let mine = asked.entry(*group).or_default();
                if !before && !mine.contains(next) {
                    mine.push(*next);
                }
            }
        }
    }
    asked.retain(|_, groups| !groups.is_empty());
    asked
}

/// Groups of a binding, each once.
fn groups(binding: &Binding) -> Vec<u32> {
    let mut groups = Vec::new();
    for group in binding {
        if *group != 0 && !groups.contains(group) {
            groups.push(*group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::followers;

    #[test]
    fn the_first_of_a_row_asks_for_all_of_it() {
        let asked = followers(&[[1, 2, 3, 4, 5], [0, 6, 0, 7, 0], [8, 0, 0, 0, 0], [0; 5]]);
        assert_eq!(asked, [(1, vec![2, 3, 4, 5]), (6, vec![7])].into());
    }

    #[test]
    fn what_follows_in_some_bindings_only_is_not_asked_for() {
        // A first group that all ENIs bind, then each its own.
        let asked = followers(&[[1, 10, 11, 12, 0], [1, 20, 21, 12, 0]]);
        let want = [(1, vec![12]), (10, vec![11]), (20, vec![21])];
        assert_eq!(asked, want.into());
    }

    #[test]
    fn a_group_that_is_bound_twice_is_asked_for_once() {
        let asked = followers(&[[1, 2, 1, 2, 1]]);
        assert_eq!(asked, [(1, vec![2])].into());
    }
}
