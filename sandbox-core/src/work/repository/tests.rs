use super::*;
use crate::work::tests::{git, repository};

#[tokio::test]
async fn a_repository_is_found_from_any_place_in_it() {
    let directory = repository();
    let deep = directory.path().join("a/b");
    std::fs::create_dir_all(&deep).unwrap();
    let open = |path: &Path| HostRepository::open(path, &[]).unwrap();
    let found = open(&deep);
    assert_eq!(found.directory, directory.path().canonicalize().unwrap().join(".git"));
    assert_eq!(open(&found.directory), found);
    assert_eq!(found.head().await.unwrap().unwrap().as_str(), git(directory.path(), &["rev-parse", "HEAD"]));

    let linked = tempfile::tempdir().unwrap();
    let tree = linked.path().join("tree");
    git(directory.path(), &["worktree", "add", "-q", tree.to_str().unwrap()]);
    let other = open(&tree);
    assert_eq!(other.directory, found.directory);
    assert_ne!(other.own, found.own);
    assert_eq!(other.commits(10).await.unwrap(), found.commits(10).await.unwrap());

    let nothing = HostRepository::open(linked.path(), &[]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound, "{nothing}");
}

fn exposing(directory: &Path, covered: &[&str]) -> Exposed {
    Exposed { directory: directory.to_owned(), covered: covered.iter().map(PathBuf::from).collect() }
}

#[test]
fn a_repository_that_an_agent_may_write_is_refused() {
    let directory = repository();
    let root = directory.path().canonicalize().unwrap();
    let other = repository();
    // The agent's own word for where the repository is counts for nothing.
    let pointing = tempfile::tempdir().unwrap();
    let target = other.path().canonicalize().unwrap().join(".git");
    std::fs::write(pointing.path().join(".git"), format!("gitdir: {}\n", target.display())).unwrap();
    assert!(HostRepository::open(pointing.path(), &[]).is_ok());
    for (path, exposed) in [
        (root.as_path(), root.clone()),
        (root.as_path(), root.join(".git")),
        (root.as_path(), root.join(".git/objects")),
        (root.as_path(), root.parent().unwrap().to_owned()),
        (pointing.path(), pointing.path().canonicalize().unwrap()),
    ] {
        let error = HostRepository::open(path, &[exposing(&exposed, &[])]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{exposed:?}: {error}");
    }
    assert!(HostRepository::open(&root, &[exposing(&other.path().canonicalize().unwrap(), &[])]).is_ok());
    // What the agent does not see, it does not write.
    assert!(HostRepository::open(&root, &[exposing(&root, &[".git"])]).is_ok());
    let pointing = pointing.path().canonicalize().unwrap();
    assert!(HostRepository::open(&pointing, &[exposing(&pointing, &[".git"])]).is_ok());
    for (path, exposed) in [
        (&root, exposing(&root, &["x", ".git/objects"])),
        (&root, exposing(root.parent().unwrap(), &[".git"])),
        (&pointing, exposing(target.parent().unwrap(), &["x"])),
    ] {
        let error = HostRepository::open(path, std::slice::from_ref(&exposed)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{exposed:?}: {error}");
    }
}

#[test]
fn a_pointer_without_end_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join(".git")).unwrap();
    // All of it is a hole, and far more than there is memory.
    file.set_len(1 << 40).unwrap();
    let error = HostRepository::open(directory.path(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
