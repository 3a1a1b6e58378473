//! Files that let git into a repository, in a folder that is made for them.

use super::os::{DirBuilderExt, OpenOptionsExt, written_for_git};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::path::Path;

/// Stand-in, in the files, for the folder that they are in.
pub const FOLDER: &str = "@FOLDER@";

/// Writes files by their names and texts, for this user alone. The folder is made where it is not there; a path of it that
/// git and ssh would read as another one is an error.
pub fn write<'f>(folder: &Path, files: impl IntoIterator<Item = (&'f str, &'f str)>) -> io::Result<()> {
    let path = written_for_git(folder);
    // Git, ssh and a shell read it, with quotes of their own around it.
    if path.contains(['\'', '"', '\\', '%', '$', '`']) {
        return Err(io::Error::other("signs in its path mean something to git and ssh"));
    }
    DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    for (name, text) in files {
        // A name alone: it leads nowhere else.
        let Some(name) = Path::new(name).file_name() else { continue };
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(folder.join(name))?.write_all(text.replace(FOLDER, &path).as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_name_their_folder_and_are_for_this_user_alone() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("git");
        write(&folder, [("config", "old and long: @FOLDER@"), ("../key", "k")]).unwrap();
        write(&folder, [("config", "in @FOLDER@")]).unwrap();
        assert_eq!(fs::read_to_string(folder.join("config")).unwrap(), format!("in {}", folder.display()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key"))), (0o700, 0o600));
        assert!(!base.path().join("key").exists());
        let odd = base.path().join("it's");
        assert!(write(&odd, [("config", "")]).is_err() && !odd.exists());
    }
}
