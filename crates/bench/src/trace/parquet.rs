//! The columns of the CSV form in a Parquet file, with the trace's header as metadata.
//!
//! Written without compression; any Parquet reader can read it. Read are files of these columns
//! that use no compression, so those that this module wrote.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::data_type::{DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::trace::cells::{self, Cell, Known, cells};
use crate::trace::{Trace, TraceError};

const SCHEMA: &str = "message trace {
    required int64 step (INTEGER(64,false));
    required int32 layer (INTEGER(32,false));
    optional int32 src_rank (INTEGER(32,false));
    required int32 token (INTEGER(32,false));
    required int32 slot (INTEGER(32,false));
    optional int32 expert (INTEGER(32,false));
    optional float weight;
    optional int32 token_id (INTEGER(32,false));
}";
/// Rows of a row group are at least this many, where there are as many.
const GROUP: usize = 1 << 20;
/// A row takes a bit at least, in whatever encoding; a file that claims more rows is damaged.
const ROWS_PER_BYTE: usize = 8;

/// The file that holds `trace`.
pub(super) fn write(trace: &Trace) -> Result<Vec<u8>, TraceError> {
    written(trace).map_err(|error| TraceError::wrong("", "value", error, "one to write"))
}

fn written(trace: &Trace) -> Result<Vec<u8>, ParquetError> {
    let header = trace.header();
    let pair = |key: &str, value: String| KeyValue::new(format!("expertmesh.{key}"), value);
    let mut pairs = vec![
        pair("experts", header.experts.to_string()),
        pair("layers", header.layers.to_string()),
        pair("source", header.source.clone()),
    ];
    pairs.extend(header.seed.map(|seed| pair("seed", seed.to_string())));
    let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs));
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build()))?;
    let mut group: Vec<Cell> = Vec::new();
    for record in trace.records() {
        group.extend(cells(record));
        if group.len() >= GROUP {
            write_group(file.next_row_group()?, &group)?;
            group.clear();
        }
    }
    if !group.is_empty() {
        write_group(file.next_row_group()?, &group)?;
    }
    file.close()?;
    Ok(bytes)
}

fn write_group(
    mut group: SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    cells: &[Cell],
) -> Result<(), ParquetError> {
    let out = &mut group;
    column::<Int64Type>(out, cells, |cell| Some(cell.step.cast_signed()), false)?;
    column::<Int32Type>(out, cells, |cell| Some(cell.layer.cast_signed()), false)?;
    column::<Int32Type>(out, cells, |cell| cell.rank.map(u32::cast_signed), true)?;
    column::<Int32Type>(out, cells, |cell| Some(cell.token.cast_signed()), false)?;
    column::<Int32Type>(out, cells, |cell| Some(cell.slot.cast_signed()), false)?;
    column::<Int32Type>(out, cells, |cell| cell.expert.map(u32::cast_signed), true)?;
    column::<FloatType>(out, cells, |cell| cell.weight, true)?;
    column::<Int32Type>(out, cells, |cell| cell.token_id.map(u32::cast_signed), true)?;
    group.close()?;
    Ok(())
}

/// Writes the next column.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    cells: &[Cell],
    of: impl Fn(&Cell) -> Option<T::T>,
    optional: bool,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General(
            "the schema has no more columns".to_owned(),
        ));
    };
    let values: Vec<T::T> = cells.iter().filter_map(&of).collect();
    let levels: Vec<i16> = match optional {
        true => cells
            .iter()
            .map(|cell| i16::from(of(cell).is_some()))
            .collect(),
        false => Vec::new(),
    };
    let levels = optional.then_some(&levels[..]);
    column.typed::<T>().write_batch(&values, levels, None)?;
    column.close()
}

/// The trace of a file; E is what the file says, then `experts`, then the highest expert + 1.
pub(super) fn read(
    bytes: Vec<u8>,
    experts: Option<u32>,
    source: String,
) -> Result<Trace, TraceError> {
    // The library asserts some of what a file says. What is known of that is checked before; the
    // rest must not take the process with it. Nothing that it leaves half done outlives the call.
    let read = catch_unwind(AssertUnwindSafe(|| read_checked(bytes, experts, source)));
    read.unwrap_or_else(|_| {
        let expected = "a Parquet file of a trace";
        Err(TraceError::wrong("", "content", "damaged", expected))
    })
}

fn read_checked(bytes: Vec<u8>, experts: Option<u32>, source: String) -> Result<Trace, TraceError> {
    let length = bytes.len();
    let damaged = |error| TraceError::wrong("", "content", error, "a Parquet file of a trace");
    let file = SerializedFileReader::new(Bytes::from(bytes)).map_err(damaged)?;
    let metadata = file.metadata().file_metadata();
    let of_key = |key: &str| {
        let pairs = metadata.key_value_metadata()?;
        let pair = pairs.iter().find(|pair| {
            let rest = pair.key.strip_prefix("expertmesh.");
            rest == Some(key)
        })?;
        pair.value.clone()
    };
    let known = Known {
        experts: of_key("experts")
            .and_then(|text| text.parse().ok())
            .or(experts),
        layers: of_key("layers").and_then(|text| text.parse().ok()),
        source: of_key("source").unwrap_or(source),
        seed: of_key("seed").and_then(|text| text.parse().ok()),
    };
    let found = metadata.schema_descr();
    let expected = parse_message_type(SCHEMA).map_err(damaged)?;
    let names = |schema: &parquet::schema::types::Type| {
        let of = |field: &parquet::schema::types::TypePtr| {
            let kind = field.is_primitive().then(|| field.get_physical_type());
            let optional = field.is_optional();
            (field.name().to_owned(), kind, optional)
        };
        schema.get_fields().iter().map(of).collect::<Vec<_>>()
    };
    if names(found.root_schema()) != names(&expected) {
        let columns: Vec<&str> = found.columns().iter().map(|column| column.name()).collect();
        let expected = format!("those of {SCHEMA}");
        return Err(TraceError::wrong(
            "",
            "columns",
            columns.join(", "),
            expected,
        ));
    }
    let most = length.saturating_mul(ROWS_PER_BYTE);
    let mut all = Vec::new();
    for at in 0..file.num_row_groups() {
        let place = || format!("row group {at}");
        let group = file.get_row_group(at).map_err(damaged)?;
        let rows = group.metadata().num_rows();
        let left = most - all.len();
        let Some(rows) = usize::try_from(rows).ok().filter(|rows| *rows <= left) else {
            let expected = format!("0 to {left} in {length} bytes");
            return Err(TraceError::wrong(place(), "rows", rows, expected));
        };
        for column in group.metadata().columns() {
            let starts = [
                Some(column.data_page_offset()),
                column.dictionary_page_offset(),
            ];
            let numbers = starts
                .into_iter()
                .flatten()
                .chain([column.compressed_size()]);
            for number in numbers {
                if !usize::try_from(number).is_ok_and(|number| number <= length) {
                    let expected = format!("0 to {length}, the file's length");
                    return Err(TraceError::wrong(
                        place(),
                        "column's place",
                        number,
                        expected,
                    ));
                }
            }
        }
        read_group(&*group, rows, &mut all).map_err(damaged)?;
    }
    cells::join(all, known)
}

fn read_group(
    group: &dyn RowGroupReader,
    rows: usize,
    into: &mut Vec<Cell>,
) -> Result<(), ParquetError> {
    let number = |value: Option<i32>| value.map(i32::cast_unsigned);
    let steps = read_column::<Int64Type>(group, 0, rows)?;
    let layers = read_column::<Int32Type>(group, 1, rows)?;
    let ranks = read_column::<Int32Type>(group, 2, rows)?;
    let tokens = read_column::<Int32Type>(group, 3, rows)?;
    let slots = read_column::<Int32Type>(group, 4, rows)?;
    let experts = read_column::<Int32Type>(group, 5, rows)?;
    let weights = read_column::<FloatType>(group, 6, rows)?;
    let token_ids = read_column::<Int32Type>(group, 7, rows)?;
    for row in 0..rows {
        into.push(Cell {
            step: steps[row].map_or(0, i64::cast_unsigned),
            layer: number(layers[row]).unwrap_or_default(),
            rank: number(ranks[row]),
            token: number(tokens[row]).unwrap_or_default(),
            slot: number(slots[row]).unwrap_or_default(),
            expert: number(experts[row]),
            weight: weights[row],
            token_id: number(token_ids[row]),
            line: into.len() as u64 + 1,
        });
    }
    Ok(())
}

/// The values of column `at`, `None` where it is empty.
fn read_column<T: DataType>(
    group: &dyn RowGroupReader,
    at: usize,
    rows: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let reader = group.get_column_reader(at)?;
    let mut reader = parquet::column::reader::get_typed_column_reader::<T>(reader);
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (more, _, _) =
            reader.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if more == 0 {
            let text = format!("column {at} has {read} rows, expected {rows}");
            return Err(ParquetError::General(text));
        }
        read += more;
    }
    let mut values = values.into_iter();
    Ok(match levels.is_empty() {
        true => values.map(Some).collect(),
        false => levels
            .iter()
            .map(|level| (*level > 0).then(|| values.next()).flatten())
            .collect(),
    })
}
