//! Whether what one Avro schema wrote can be read by another. Source: Avro 1.11, schema resolution.

use std::collections::HashMap;

use super::{Avro, Id, Type};

/// Pairs of types that are compared, at most, and how deep one comparison leads to another: what is above is meant to cost time.
const PAIRS_MAX: usize = 1_000_000;
const DEPTH_MAX: usize = 500;

/// # Errors
/// What of the writer's the reader cannot read.
pub(in crate::schema) fn can_read(reader: &Avro, writer: &Avro) -> Result<(), String> {
    Resolution { reader, writer, known: HashMap::new(), left: PAIRS_MAX }.resolve(reader.root, writer.root, DEPTH_MAX)
}

struct Resolution<'s> {
    reader: &'s Avro,
    writer: &'s Avro,
    /// Pairs that were compared; one that is being compared counts as good, since a recursive type asks for itself.
    known: HashMap<(Id, Id), Result<(), String>>,
    left: usize,
}

impl Resolution<'_> {
    fn resolve(&mut self, read: Id, written: Id, depth: usize) -> Result<(), String> {
        if let Some(known) = self.known.get(&(read, written)) {
            return known.clone();
        }
        self.left = self.left.checked_sub(1).ok_or("the revisions are too large to be compared")?;
        let depth = depth.checked_sub(1).ok_or("the revisions are nested too deeply to be compared")?;
        self.known.insert((read, written), Ok(()));
        let found = self.compare(read, written, depth);
        self.known.insert((read, written), found.clone());
        found
    }

    fn compare(&mut self, read: Id, written: Id, depth: usize) -> Result<(), String> {
        let (reader, writer) = (self.reader, self.writer);
        match (reader.kind(read), writer.kind(written)) {
            (_, Type::Union { branches, .. }) => branches.iter().try_for_each(|branch| self.resolve(read, *branch, depth)),
            (Type::Union { branches, .. }, _) => {
                let is_readable = branches.iter().any(|branch| self.resolve(*branch, written, depth).is_ok());
                if is_readable { Ok(()) } else { Err(format!("no branch of a union reads {}", writer.name(written))) }
            }
            (Type::Null, Type::Null)
            | (Type::Boolean, Type::Boolean)
            | (Type::Int, Type::Int)
            | (Type::Long, Type::Int | Type::Long)
            | (Type::Float, Type::Int | Type::Long | Type::Float)
            | (Type::Double, Type::Int | Type::Long | Type::Float | Type::Double)
            | (Type::Bytes | Type::String, Type::Bytes | Type::String) => Ok(()),
            (Type::Array(read), Type::Array(written)) | (Type::Map(read), Type::Map(written)) => self.resolve(*read, *written, depth),
            (Type::Fixed { name, bytes }, Type::Fixed { name: other, bytes: others }) if is_same(name, other) && bytes == others => Ok(()),
            (Type::Enum { name, by_symbol, has_default, .. }, Type::Enum { name: other, symbols, .. }) if is_same(name, other) => {
                match symbols.iter().find(|symbol| !by_symbol.contains_key(*symbol)) {
                    Some(lacking) if !has_default => Err(format!("enum {name} lacks the symbol {lacking:?} and has no default")),
                    _ => Ok(()),
                }
            }
            (Type::Record { name, fields, .. }, Type::Record { name: other, fields: others, by_name }) if is_same(name, other) => {
                for field in fields {
                    match by_name.get(&field.name) {
                        Some(at) => {
                            let inner = self.resolve(field.kind, others[*at].kind, depth);
                            inner.map_err(|why| format!("field {:?} of {name}: {why}", field.name))?;
                        }
                        None if field.has_default => {}
                        None => return Err(format!("field {:?} of {name} is not in the other revision and has no default", field.name)),
                    }
                }
                Ok(())
            }
            _ => Err(format!("{} cannot be read as {}", writer.name(written), reader.name(read))),
        }
    }
}

/// Names are compared without their namespaces.
fn is_same(name: &str, other: &str) -> bool {
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    last(name) == last(other)
}
