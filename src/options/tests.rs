//! Names and values flow in as users write them; options and messages come out.

use super::*;

fn set(name: &str, value: Value) -> Result<Options> {
    let mut o = Options::default();
    o.set(name, &value).map(|()| o)
}

#[test]
fn a_misspelt_name_fails_with_the_nearest() {
    let e = set("icp", Value::Int(1)).unwrap_err().to_string();
    assert_eq!(e, "unknown option 'icp' (did you mean 'ipc'?)");
}

#[test]
fn values_are_checked_for_type_and_range() {
    assert_eq!(set("ipc", Value::Text("50".into())).unwrap().ipc, 50);
    for (name, value, part) in [
        ("ipc", Value::Int(0), "from 1 to"),
        ("ipc", Value::Text("many".into()), "whole number"),
        ("ipc", Value::Float(1.5), "whole number"),
        ("width", Value::Int(20), "multiple of 8"),
        ("method", Value::Text("characterstic".into()), "did you mean 'characteristic'"),
        ("augment", Value::Text("crop_flop".into()), "did you mean 'flip'"),
        ("device", Value::Text("tpu".into()), "cuda:N"),
        ("ranges", Value::Text("5,1".into()), "low < high"),
        ("image_size", Value::Text("28x28x2".into()), "1 or 3 channels"),
    ] {
        let e = set(name, value).unwrap_err().to_string();
        assert!(e.contains(part) && e.contains(name), "{e}");
    }
}

#[test]
fn ranges_are_of_one_list_or_of_the_columns_of_a_table() {
    let of = |text: &str| set("ranges", Value::Text(text.into())).map(|o| o.ranges.unwrap());
    assert_eq!(of("0, 16").unwrap().list(), Some(Range { low: 0.0, high: 16.0 }));
    let table = of("age=0..100, sex=female | male").unwrap();
    assert_eq!(table.column("age"), Some(&Declared::Numbers(Range { low: 0.0, high: 100.0 })));
    assert_eq!(table.column("sex"), Some(&Declared::Categories(vec!["female".into(), "male".into()])));
    assert_eq!((table.list(), table.column("id")), (None, None));
    assert_eq!(of(&table.to_string()).unwrap(), table);
    for (text, part) in [
        ("age=5..1", "low < high"),
        ("age=0..1, 5", "column=low..high"),
        ("sex=a|a", "column=a|b|c"),
        ("sex=a", "column=a|b|c"),
        ("a=0..1,a=0..2", "column 'a' is declared twice"),
    ] {
        let e = of(text).unwrap_err().to_string();
        assert!(e.contains(part), "{text}: {e}");
    }
}

#[test]
fn null_goes_back_to_the_default_and_aliases_are_understood() {
    let mut o = set("ipc", Value::Int(3)).unwrap();
    o.set("ipc", &Value::Null).unwrap();
    assert_eq!(o, Options::default());
    assert_eq!(set("method", Value::Text("DM".into())).unwrap().method, Method::Mean);
}

#[test]
fn of_ipc_and_rows_the_later_one_counts() {
    let mut o = set("ipc", Value::Int(3)).unwrap();
    o.set("rows", &Value::Int(50)).unwrap();
    assert_eq!((o.rows, o.ipc), (Some(50), 10));
    o.set("ipc", &Value::Null).unwrap();
    assert_eq!(o.rows, Some(50));
    o.set("ipc", &Value::Int(4)).unwrap();
    assert_eq!((o.rows, o.ipc), (None, 4));
}

#[test]
fn every_option_shown_can_be_read_back() {
    let o = Options::default();
    let mut back = Options::default();
    for (name, value, _) in o.entries() {
        if let Some(v) = value {
            back.set(name, &Value::Text(v)).unwrap();
        }
    }
    assert_eq!(o, back);
}
