//! Whether bytes are a value of an Avro schema, found by walking over them: nothing of them is kept.
//!
//! A value of the schema can take no bytes at all (`null`, a record of such), so that a few bytes can stand for any number of values:
//! steps are counted. Source: Avro 1.11, binary encoding.

use super::{Avro, Id, Type};

/// How deep records, arrays, maps and unions of a message may lie in each other.
const DEPTH_MAX: usize = 100;
/// So many values of no bytes are followed in one message, beside those that its bytes pay for.
const EMPTY_MAX: usize = 100_000;

/// # Errors
/// Why they are none.
pub(in crate::schema) fn check(schema: &Avro, data: &[u8]) -> Result<(), String> {
    let mut walk = Walk { schema, left: data, steps: EMPTY_MAX + 2 * data.len() };
    walk.value(schema.root, DEPTH_MAX)?;
    if walk.left.is_empty() { Ok(()) } else { Err("Too much data to parse for schema.".to_owned()) }
}

struct Walk<'s, 'd> {
    schema: &'s Avro,
    left: &'d [u8],
    steps: usize,
}

impl Walk<'_, '_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<(), String> {
        self.steps = self.steps.checked_sub(1).ok_or("The message holds too many values without any bytes.")?;
        let depth = depth.checked_sub(1).ok_or_else(|| format!("The message is nested deeper than {DEPTH_MAX} levels."))?;
        let schema = self.schema;
        match schema.kind(id) {
            Type::Null => Ok(()),
            Type::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                _ => Err("A boolean is neither 0 nor 1.".to_owned()),
            },
            Type::Int => {
                let number = self.long()?;
                i32::try_from(number).map(drop).map_err(|_| format!("{number} is out of the range of an int."))
            }
            Type::Long => self.long().map(drop),
            Type::Float => self.take(4).map(drop),
            Type::Double => self.take(8).map(drop),
            Type::Fixed { bytes, .. } => self.take(*bytes).map(drop),
            Type::Bytes => self.sized().map(drop),
            Type::String => self.string(),
            Type::Enum { name, symbols, .. } => {
                let at = self.long()?;
                let is_symbol = usize::try_from(at).is_ok_and(|at| at < symbols.len());
                if is_symbol { Ok(()) } else { Err(format!("Invalid enum index without default value: {name}")) }
            }
            Type::Union { branches, .. } => {
                let at = self.long()?;
                let branch = usize::try_from(at).ok().and_then(|at| branches.get(at));
                self.value(*branch.ok_or_else(|| format!("{at} is no branch of a union."))?, depth)
            }
            Type::Record { fields, .. } => fields.iter().try_for_each(|field| self.value(field.kind, depth)),
            Type::Array(items) => self.blocks(|walk| walk.value(*items, depth)),
            Type::Map(values) => self.blocks(|walk| {
                walk.string()?;
                walk.value(*values, depth)
            }),
        }
    }

    fn blocks(&mut self, item: impl Fn(&mut Self) -> Result<(), String>) -> Result<(), String> {
        loop {
            self.steps = self.steps.checked_sub(1).ok_or("The message has too many blocks.")?;
            let count = self.long()?;
            match count {
                0 => return Ok(()),
                // Its size in bytes comes first, for who wants to pass it over.
                ..0 => drop(self.long()?),
                _ => {}
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }

    fn string(&mut self) -> Result<(), String> {
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map(drop).map_err(|_| "A string is not UTF-8.".to_owned())
    }

    fn sized(&mut self) -> Result<&[u8], String> {
        let bytes = self.long()?;
        self.take(usize::try_from(bytes).map_err(|_| format!("{bytes} is no length."))?)
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], String> {
        let (taken, left) = self.left.split_at_checked(bytes).ok_or("Not enough data to parse for schema.")?;
        self.left = left;
        Ok(taken)
    }

    /// A number in zigzag and base 128.
    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err("A number is longer than 64 bits.".to_owned())
    }
}
