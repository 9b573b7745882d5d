//! The part of Chakra's `schema/protobuf/et_def.proto` that an exchange needs: names and numbers of
//! fields are those of MLCommons' repository, May 2026.

/// First message of a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GlobalMetadata {
    /// Of the schema.
    #[prost(string, tag = "1")]
    pub version: String,
    /// About the whole file.
    #[prost(message, repeated, tag = "2")]
    pub attr: Vec<AttributeProto>,
}

/// One operation of one endpoint.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Unique in its file.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it does.
    #[prost(enumeration = "NodeType", tag = "3")]
    pub r#type: i32,
    /// Nodes that must have ended before it begins, whose data it does not read.
    #[prost(uint64, repeated, tag = "4")]
    pub ctrl_deps: Vec<u64>,
    /// Nodes whose data it reads.
    #[prost(uint64, repeated, tag = "5")]
    pub data_deps: Vec<u64>,
    /// µs since the file's beginning; too coarse for what is told here.
    #[prost(uint64, tag = "6")]
    pub start_time_micros: u64,
    /// µs, rounded up; the attribute `duration_ns` has the rest.
    #[prost(uint64, tag = "7")]
    pub duration_micros: u64,
    /// By name.
    #[prost(message, repeated, tag = "10")]
    pub attr: Vec<AttributeProto>,
}

/// What a [`Node`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NodeType {
    /// No type.
    Invalid = 0,
    /// Computes.
    Comp = 4,
    /// Sends to one other.
    CommSend = 5,
    /// Receives from one other.
    CommRecv = 6,
}

/// A name and a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(oneof = "Value", tags = "7, 9, 13, 27, 29")]
    pub value: Option<Value>,
}

/// Of the many types of the schema, those that are written here.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Endpoints and tags.
    #[prost(int32, tag = "7")]
    Int32(i32),
    /// Bytes.
    #[prost(int64, tag = "9")]
    Int64(i64),
    /// Nanoseconds.
    #[prost(uint64, tag = "13")]
    Uint64(u64),
    /// Yes or no.
    #[prost(bool, tag = "27")]
    Bool(bool),
    /// Names.
    #[prost(string, tag = "29")]
    String(String),
}
