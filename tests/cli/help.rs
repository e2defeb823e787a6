use super::Folder;

#[test]
fn help_is_what_users_read() {
    let folder = Folder::new();
    let mut text = folder.succeeds(["--help"]);
    for command in ["run", "sql", "evaluate", "pool", "unpack", "inspect"] {
        text += &format!("\n=== distill {command} --help\n\n{}", folder.succeeds([command, "--help"]));
    }
    text += &format!("\n=== distill pool create --help\n\n{}", folder.succeeds(["pool", "create", "--help"]));
    insta::assert_snapshot!("help", text);
}

#[test]
fn every_option_of_distill_is_a_flag_of_run() {
    let folder = Folder::new();
    let help = folder.succeeds(["run", "--help"]);
    for spec in datafusion_distill::options::SPECS {
        let flag = format!("--{} <", spec.name.replace('_', "-"));
        assert!(help.contains(&flag), "{flag}");
    }
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(Folder::new().succeeds(["--version"]), format!("distill {}\n", env!("CARGO_PKG_VERSION")));
}
