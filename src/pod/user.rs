//! The user that steps run as, by the files of the image: a static program cannot load the system's name services.

use std::path::PathBuf;

/// A user of the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: PathBuf,
}

/// Finds `user` or `user:group`, by names or numbers, in the texts of `/etc/passwd` and `/etc/group`.
pub(super) fn find(wanted: &str, passwd: &str, group: &str) -> Option<ImageUser> {
    let (name, group_name) =
        wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
    let number: Option<u32> = name.parse().ok();
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut known = fields.filter_map(|fields| match fields.as_slice() {
        [name, _, uid, gid, _, home, ..] => {
            Some((*name, ImageUser { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() }))
        }
        _ => None,
    });
    let found = known.find(|(known, user)| *known == name || Some(user.uid) == number).map(|(_, user)| user);
    let mut user = found.or_else(|| number.map(|uid| ImageUser { uid, gid: 0, home: "/".into() }))?;
    if let Some(wanted) = group_name {
        let by_name = group.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(wanted)).then(|| fields.nth(1)?.parse().ok())?
        });
        user.gid = by_name.or_else(|| wanted.parse().ok())?;
    }
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:100::/home/me:/bin/sh\n";
        let group = "users:x:100:\nwheel:x:10:me\n";
        let found = |wanted: &str| find(wanted, passwd, group).map(|user| (user.uid, user.gid, user.home));
        let me = |gid| Some((1000, gid, PathBuf::from("/home/me")));
        assert_eq!(found("me"), me(100));
        assert_eq!(found("1000:wheel"), me(10));
        assert_eq!(found("me:7"), me(7));
        assert_eq!(found("77"), Some((77, 0, PathBuf::from("/"))));
        assert_eq!((found("nobody"), found("me:nogroup")), (None, None));
    }
}
