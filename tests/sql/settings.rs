//! `SET distill.*` and `SHOW distill.*`.

use crate::support::*;

#[tokio::test]
async fn settings_are_defaults_that_arguments_override() {
    let ctx = session_with_table("t", pictures(12, 3));
    rows(&ctx, "SET distill.ipc = 2").await.unwrap();
    rows(&ctx, "SET distill.classes = 'zero,one'").await.unwrap();
    let count =
        async |extra: &str| rows(&ctx, &format!("SELECT * FROM distill(t, {SMALL}{extra})")).await.unwrap().num_rows();
    assert_eq!(count("").await, 4);
    assert_eq!(count(", ipc => 1").await, 2);
    assert_eq!(count(", classes => NULL").await, 6);
    rows(&ctx, "SET distill.ipc = DEFAULT").await.unwrap();
    assert_eq!(count("").await, 20);
    rows(&ctx, "SET distill.classes = DEFAULT").await.unwrap();
    assert_eq!(count("").await, 30);
}

#[tokio::test]
async fn show_tells_a_setting_and_its_documentation() {
    let ctx = session();
    rows(&ctx, "SET distill.ipc = 7").await.unwrap();
    insta::assert_snapshot!(shown(&ctx, "SHOW distill.ipc VERBOSE").await, @r"
    +-------------+-------+---------------------------+
    | name        | value | description               |
    +-------------+-------+---------------------------+
    | distill.ipc | 7     | Synthetic rows per class. |
    +-------------+-------+---------------------------+
    ");
    let all = shown(&ctx, "SELECT name FROM information_schema.df_settings WHERE name LIKE 'distill.%'").await;
    for option in datafusion_distill::options::SPECS {
        assert!(all.contains(&format!("distill.{} ", option.name)), "{}", option.name);
    }
}

#[tokio::test]
async fn a_wrong_setting_is_refused_when_it_is_set() {
    let ctx = session();
    for (set, part) in [
        ("SET distill.icp = 1", "unknown option 'icp' (did you mean 'ipc'?)"),
        ("SET distill.ipc = 0", "expected a whole number from 1"),
        ("SET distill.method = 'meen'", "did you mean 'mean'?"),
    ] {
        let message = message(&ctx, set).await;
        assert!(message.contains(part), "{set}: {message}");
    }
    insta::assert_snapshot!(shown(&ctx, "SHOW distill.ipc").await, @r"
        +-------------+-------+
        | name        | value |
        +-------------+-------+
        | distill.ipc | 10    |
        +-------------+-------+
        ");
}
