//! Files in columns, as datasets, pandas and pyarrow write them (fixtures/make_data.py), and files that are damaged.

use loram_io::data::{DataSpec, RawRecord, expand_paths, load_records, raw_records};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data")
}

fn fixture(name: &str) -> String {
    fixtures().join(name).display().to_string()
}

/// The rows as `datasets` reads them.
fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("rows.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[name].as_array().unwrap().clone()
}

fn rows(paths: &[String]) -> loram_io::Result<Vec<Value>> {
    let mut out = Vec::new();
    for path in expand_paths(paths)? {
        for (at, raw) in raw_records(&path)? {
            let RawRecord::Object(value) = raw else { panic!("{at}: a document") };
            out.push(value);
        }
    }
    Ok(out)
}

fn fails(path: &Path) -> String {
    let e = rows(&[path.display().to_string()]).unwrap_err();
    assert_eq!(e.exit_code(), 2, "{e}");
    let text = e.to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name), "names the file: {text}");
    text
}

#[test]
fn rows_are_those_of_datasets() {
    for (file, name) in [
        ("chats.parquet", "chats"),
        ("classes.parquet", "classes"),
        ("saved", "classes"),
        ("frame.parquet", "frame"),
        ("frame.arrow", "frame"),
        ("stream.arrow", "frame"),
    ] {
        assert_eq!(rows(&[fixture(file)]).unwrap(), expected(name), "{file}");
    }
    let parts = rows(&[fixture("parts/train"), fixture("parts/test")]).unwrap();
    assert_eq!(parts, expected("classes")[..4]);
}

#[test]
fn records_come_out_of_columns_and_tables() {
    let load = |path: String| load_records(&DataSpec { paths: vec![path], ..DataSpec::default() });
    let chats = load(fixture("chats.parquet")).unwrap();
    assert!(chats.len() == 7 && chats.iter().all(|r| r.is_chat()));
    assert!(chats[2].at.ends_with("chats.parquet: record 3"), "{}", chats[2].at);
    // a hidden label is no label
    let e = load(fixture("saved")).unwrap_err().to_string();
    assert!(e.contains("record 1") && e.contains("`label`"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.csv");
    std::fs::write(&table, "text,label\n\"a, b\",pos\nc,neg\n").unwrap();
    assert_eq!(load(table.display().to_string()).unwrap().len(), 2);
}

#[test]
fn a_folder_of_several_parts_names_them() {
    let e = rows(&[fixture("parts")]).unwrap_err().to_string();
    assert!(e.contains("parts/train") && e.contains("parts/test"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.parquet"), "").unwrap();
    let e = rows(&[dir.path().display().to_string()]).unwrap_err().to_string();
    assert!(e.contains("/*.parquet"), "{e}");
    std::fs::write(dir.path().join("dataset_info.json"), "{}").unwrap();
    for (state, what) in [
        ("{}", "expected the list of files"),
        (r#"{"_data_files": [{"filename": "../x.arrow"}]}"#, "not in the folder"),
    ] {
        std::fs::write(dir.path().join("state.json"), state).unwrap();
        let e = rows(&[dir.path().display().to_string()]).unwrap_err().to_string();
        assert!(e.contains("state.json") && e.contains(what), "{e}");
    }
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["chats.parquet", "classes.parquet", "frame.parquet", "frame.arrow", "stream.arrow"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let path = dir.path().join(name);
        for cut in [0, 3, whole.len() / 3, whole.len() / 2] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let text = fails(&path);
            assert!(text.contains("damaged or incomplete"), "{name} cut to {cut}: {text}");
        }
        // no flipped bit leads to a panic or to an exhausted memory
        for i in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[i] ^= 1 << (i % 8);
            std::fs::write(&path, &bytes).unwrap();
            if let Err(e) = rows(&[path.display().to_string()]) {
                assert_eq!(e.exit_code(), 2, "{name}, byte {i}: {e}");
            }
        }
    }
    assert!(fails(&PathBuf::from(fixture("packed.arrow"))).contains("compressed Arrow files are not read"));
    let packed = dir.path().join("a.parquet.gz");
    std::fs::write(&packed, "x").unwrap();
    assert!(fails(&packed).contains("unpack it"));
    let pointer = dir.path().join("p.parquet");
    std::fs::write(&pointer, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").unwrap();
    assert!(fails(&pointer).contains("Git LFS pointer"));
    let other = dir.path().join("a.xlsx");
    std::fs::write(&other, "x").unwrap();
    assert!(fails(&other).contains(".parquet"));
}
