//! The example `stream`: windows of an Arrow IPC stream, with readers and writers in memory.

#[path = "../../examples/stream/windows.rs"]
mod distill_windows;

use std::cell::RefCell;
use std::io::{Cursor, Read, Write};
use std::num::NonZeroUsize;
use std::rc::Rc;

use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::{FileWriter, StreamWriter};

use super::*;
use crate::support::*;
use distill_windows::{Done, distill_windows};

const OPTIONS: &str = "extractors=2 width=8 depth=1 frequencies=8 ipc=1 steps=2";

/// The bytes of an IPC stream of `batches`, and where each message of them ends.
fn written(batches: &[RecordBatch]) -> (Vec<u8>, Vec<usize>) {
    let mut writer = StreamWriter::try_new(vec![], &batches[0].schema()).unwrap();
    let mut ends = vec![];
    for batch in batches {
        writer.write(batch).unwrap();
        ends.push(writer.get_ref().len());
    }
    (writer.into_inner().unwrap(), ends)
}

fn run(input: impl Read, output: impl Write, every: usize) -> Result<Done, String> {
    let mut options = Options::default();
    options.set_text(OPTIONS).unwrap();
    let configure = |builder: datafusion_distill::stream::StreamDistillerBuilder| {
        builder.options(options).threads(2).memory_limit(64 << 20)
    };
    distill_windows(input, output, NonZeroUsize::new(every).unwrap(), configure).map_err(|e| e.to_string())
}

fn read(bytes: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(bytes, None).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn each_window_is_what_distill_makes_of_its_rows_however_they_are_cut_into_batches() {
    let all = pictures(100, 3);
    let batches: Vec<RecordBatch> =
        [(0, 7), (7, 0), (7, 53), (60, 39), (99, 1)].map(|(from, n)| all.slice(from, n)).into();
    let mut output = vec![];
    let done = run(&written(&batches).0[..], &mut output, 40).unwrap();
    assert_eq!(done, Done { windows: 3, rows: 100, written: 9 });
    let found = read(&output);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].schema(), all.schema());
    for (batch, (from, n)) in found.iter().zip([(0, 40), (40, 40), (80, 20)]) {
        let ctx = session_with_table("t", all.slice(from, n));
        let expected = rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 1, {SMALL})")).await.unwrap();
        assert_eq!(batch.columns(), expected.columns());
    }
}

/// A reader that counts what is read from it.
struct Counted(Cursor<Vec<u8>>, Rc<RefCell<usize>>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        *self.1.borrow_mut() += read;
        Ok(read)
    }
}

/// A writer that notes how much has been read at each flush.
struct Noted(Rc<RefCell<usize>>, Vec<usize>);

impl Write for Noted {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.1.push(*self.0.borrow());
        Ok(())
    }
}

#[test]
fn nothing_is_read_beyond_the_batch_that_is_being_worked_in() {
    let all = pictures(120, 3);
    let batches: Vec<RecordBatch> = (0..8).map(|i| all.slice(15 * i, 15)).collect();
    let (bytes, ends) = written(&batches);
    let read = Rc::new(RefCell::new(0));
    let mut output = Noted(Rc::clone(&read), vec![]);
    run(Counted(Cursor::new(bytes), Rc::clone(&read)), &mut output, 30).unwrap();
    // The schema alone at the start; then a window's two batches each; the end of the stream last.
    let first = output.1[0];
    assert!(first < ends[0], "{first} of {}", ends[0]);
    assert_eq!(output.1[1..5], [ends[1], ends[3], ends[5], ends[7]]);
}

#[test]
fn errors_name_the_window_and_what_was_made_before_is_a_whole_stream() {
    let good = pictures(40, 3);
    let mut bytes: Vec<_> = (0..20).map(|i| Some(png(i % 3, i, 8))).collect();
    bytes[5] = None;
    let bad = pictures_of(bytes, (0..20).map(|i| Some(i % 3)).collect());
    let mut output = vec![];
    let e = run(&written(&[good.clone(), bad]).0[..], &mut output, 30).unwrap_err();
    assert!(
        e.contains("window 2 (from row 30 to before row 60): stream, row 45, column 'image'") && e.contains("on_null"),
        "{e}"
    );
    assert_eq!(read(&output).len(), 1);

    let one_class = pictures(10, 1);
    let mut output = vec![];
    let e = run(&written(&[good.clone(), one_class]).0[..], &mut output, 40).unwrap_err();
    assert!(e.contains("window 2 (from row 40 to before row 50)") && e.contains("at least two classes"), "{e}");
    assert_eq!(read(&output).len(), 1);

    // A stream that breaks off inside a batch.
    let (bytes, ends) = written(&[good.clone(), good.clone()]);
    let mut output = vec![];
    let e = run(&bytes[..ends[1] - 100], &mut output, 40).unwrap_err();
    assert!(e.contains("after 40 rows the input can't be read"), "{e}");
    assert_eq!(read(&output).len(), 1);

    let mut file = FileWriter::try_new(vec![], &good.schema()).unwrap();
    file.write(&good).unwrap();
    let e = run(&file.into_inner().unwrap()[..], vec![], 40).unwrap_err();
    assert!(e.contains("no Arrow IPC stream") && e.contains("file format"), "{e}");
    let e = run(&b""[..], vec![], 40).unwrap_err();
    assert!(e.contains("no Arrow IPC stream"), "{e}");
    let e = run(&written(&[numbers(9, 3)]).0[..], vec![], 40).unwrap_err();
    assert!(e.contains("'ranges'"), "{e}");
}

#[test]
fn an_empty_stream_gives_an_empty_one_of_the_same_schema() {
    let all = pictures(3, 3);
    let mut output = vec![];
    assert_eq!(run(&written(&[all.slice(0, 0)]).0[..], &mut output, 40).unwrap(), Done::default());
    let reader = StreamReader::try_new(&output[..], None).unwrap();
    assert_eq!(reader.schema(), all.schema());
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    assert_eq!(concat_batches(&all.schema(), &batches).unwrap().num_rows(), 0);
}
