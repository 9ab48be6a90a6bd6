//! The rules of a distance table.

use super::*;

#[test]
fn a_good_table() {
    let table = NumaDistance::new(&[[10, 11, 254], [11, 10, 20], [254, 20, 10]]).expect("valid");
    assert_eq!(table.nodes(), 3);
    assert_eq!(table.get(0, 2), Some(254));
    assert_eq!(table.get(2, 1), Some(20));
    assert_eq!((table.get(3, 0), table.get(0, 3)), (None, None));
    assert_eq!(table.rows().nth(1), Some(&[11, 10, 20][..]));
    let same = NumaDistance::from_static(3, &[10, 11, 254, 11, 10, 20, 254, 20, 10]);
    assert_eq!(table, same);
}

#[test]
fn bad_tables() {
    let refused = |rows: &[&[u8]]| NumaDistance::new(rows).expect_err("a rule is broken");
    assert_eq!(refused(&[&[10, 20], &[20]]), TopologyError::DistanceRow { row: 1, seen: 1, expected: 2 });
    let value = |from, to, seen| {
        move |error: TopologyError| match error {
            TopologyError::DistanceValue { from: f, to: t, seen: s, .. } => (f, t, s) == (from, to, seen),
            _ => false,
        }
    };
    assert!(value(1, 1, 11)(refused(&[&[10, 20], &[20, 11]])));
    assert!(value(0, 1, 10)(refused(&[&[10, 10], &[10, 10]])));
    assert!(value(0, 1, 0)(refused(&[&[10, 0], &[20, 10]])));
    assert!(value(0, 1, 255)(refused(&[&[10, 255], &[255, 10]])));
    assert_eq!(
        refused(&[&[10, 20], &[21, 10]]),
        TopologyError::DistanceAsymmetric { from: 0, to: 1, there: 20, back: 21 }
    );
}

#[test]
fn json_is_rows_and_is_checked() {
    let table = NumaDistance::new(&[[10, 20], [20, 10]]).expect("valid");
    let json = serde_json::to_string(&table).expect("it can be written");
    assert_eq!(json, "[[10,20],[20,10]]");
    assert_eq!(serde_json::from_str::<NumaDistance>(&json).expect("it was valid"), table);
    assert!(serde_json::from_str::<NumaDistance>("[[10,20],[30,10]]").is_err());
}

#[test]
fn a_static_table_of_the_wrong_size_is_safe_to_ask() {
    let table = NumaDistance::from_static(u32::MAX, &[10]);
    assert_eq!(table.get(0, 0), Some(10));
    assert_eq!(table.get(u32::MAX - 1, u32::MAX - 1), None);
    assert!(table.validate().is_err());
    let table = NumaDistance::from_static(0, &[]);
    assert_eq!(table.rows().count(), 0);
}
