//! Values of Arrow columns as JSON. Only what text data are made of: the library that converts every type would be a quarter of the
//! program.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::DataType;
use serde_json::{Map, Number, Value};

/// Returns whether values of a type are read: texts, numbers, booleans, and lists and structures of them. Bytes, times and decimals
/// are not.
pub(super) fn is_read(kind: &DataType) -> bool {
    match kind {
        DataType::Null | DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        kind if kind.is_integer() || kind.is_floating() => true,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            is_read(f.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|f| is_read(f.data_type())),
        DataType::Dictionary(_, value) => is_read(value),
        _ => false,
    }
}

/// A row of the columns that are read.
pub(super) fn row(batch: &RecordBatch, i: usize) -> Map<String, Value> {
    let schema = batch.schema_ref();
    let columns = schema.fields().iter().zip(batch.columns()).filter(|(f, _)| is_read(f.data_type()));
    columns.map(|(field, column)| (field.name().clone(), value(column, i))).collect()
}

fn value(array: &dyn Array, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    macro_rules! number {
        ($($kind:ident $values:ident),*) => {
            match array.data_type() {
                $(DataType::$kind => return Value::from(array.as_primitive::<$values>().value(i)),)*
                _ => {}
            }
        };
    }
    number!(
        Int8 Int8Type, Int16 Int16Type, Int32 Int32Type, Int64 Int64Type, UInt8 UInt8Type, UInt16 UInt16Type,
        UInt32 UInt32Type, UInt64 UInt64Type, Float64 Float64Type
    );
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(i).into(),
        DataType::Float32 => shortest(array.as_primitive::<Float32Type>().value(i)),
        DataType::Float16 => shortest(array.as_primitive::<Float16Type>().value(i).to_f32()),
        DataType::Utf8 => array.as_string::<i32>().value(i).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(i).into(),
        DataType::Utf8View => array.as_string_view().value(i).into(),
        DataType::List(_) => list(&array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(i)),
        DataType::Struct(_) => object(array.as_struct(), i),
        DataType::Map(..) => map(&array.as_map().value(i)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = value(dictionary.keys(), i).as_u64().and_then(|key| usize::try_from(key).ok());
            key.filter(|&k| k < dictionary.values().len()).map_or(Value::Null, |k| value(dictionary.values(), k))
        }
        _ => Value::Null,
    }
}

/// The shortest decimal number that is this one in f32.
fn shortest(x: f32) -> Value {
    x.to_string().parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

fn list(values: &ArrayRef) -> Value {
    (0..values.len()).map(|i| value(values, i)).collect()
}

fn object(structure: &StructArray, i: usize) -> Value {
    let fields = structure.fields().iter().zip(structure.columns());
    Value::Object(fields.map(|(field, column)| (field.name().clone(), value(column, i))).collect())
}

/// The entries of a map as an object; keys that are no texts are written as JSON.
fn map(entries: &StructArray) -> Value {
    let (keys, values) = (entries.column(0), entries.column(1));
    let key = |i| match value(keys, i) {
        Value::String(s) => s,
        other => other.to_string(),
    };
    Value::Object((0..entries.len()).map(|i| (key(i), value(values, i))).collect())
}
