//! Window sizes as they arrive on `winsz`: JSON objects `{"columns":c,"rows":r}`, cut anywhere.

/// A window size, 0 where nothing was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// The longest name that matters has seven letters; longer ones are cut, and match none.
const NAME_BYTES: usize = 8;

/// Understands one byte after the other, so that it holds an object's numbers and never its text.
/// Garbage is passed over up to the next object.
#[derive(Debug, Default)]
pub(crate) struct SizeStream {
    place: Place,
    size: Size,
    name: [u8; NAME_BYTES],
    name_length: usize,
    number: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Between two objects, or in garbage.
    #[default]
    Outside,
    /// Before a name.
    Inside,
    Name,
    Colon,
    Number,
}

impl SizeStream {
    /// Takes the next byte, and returns the size that it completes.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Size> {
        let is_blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match (self.place, byte) {
            (Place::Name, b'"') => self.place = Place::Colon,
            (Place::Name, _) => self.extend_name(byte),
            (_, b'{') => *self = Self { place: Place::Inside, ..Self::default() },
            (Place::Inside | Place::Number, b'}') => {
                let is_whole = self.place == Place::Inside || self.end_member();
                self.place = Place::Outside;
                return is_whole.then_some(self.size);
            }
            (Place::Inside, b'"') => (self.place, self.name_length) = (Place::Name, 0),
            (Place::Colon, b':') => (self.place, self.number) = (Place::Number, None),
            (Place::Number, b'0'..=b'9') => self.extend_number(byte - b'0'),
            (Place::Number, b',') => {
                self.place = if self.end_member() { Place::Inside } else { Place::Outside };
            }
            (Place::Outside | Place::Inside | Place::Colon | Place::Number, _) if is_blank => {}
            _ => self.place = Place::Outside,
        }
        None
    }

    fn extend_name(&mut self, byte: u8) {
        if byte == b'\n' {
            // No name holds one: this was garbage, and what follows is a new line.
            self.place = Place::Outside;
        } else if let Some(place) = self.name.get_mut(self.name_length) {
            *place = byte;
            self.name_length += 1;
        }
    }

    fn extend_number(&mut self, digit: u8) {
        let number = self.number.unwrap_or(0).checked_mul(10);
        self.number = number.and_then(|number| number.checked_add(u16::from(digit)));
        if self.number.is_none() {
            self.place = Place::Outside;
        }
    }

    /// Takes a member over, at its end; tells whether it had a number.
    fn end_member(&mut self) -> bool {
        match (self.name.get(..self.name_length), self.number) {
            (Some(b"columns"), Some(number)) => self.size.columns = number,
            (Some(b"rows"), Some(number)) => self.size.rows = number,
            _ => {}
        }
        self.number.is_some()
    }
}

#[cfg(test)]
mod tests {
    use guardian_contract::process::WindowSize;

    use super::*;

    fn sizes(text: &[u8]) -> Vec<(u16, u16)> {
        let mut stream = SizeStream::default();
        let found = text.iter().filter_map(|byte| stream.push(*byte));
        found.map(|size| (size.columns, size.rows)).collect()
    }

    #[test]
    fn objects_are_found_wherever_they_begin() {
        for (text, want) in [
            (r#"{"columns":1,"rows":2}{"rows":4,"columns":3}"#, vec![(1, 2), (3, 4)]),
            (
                "{\"columns\":1,\"rows\":2}\n{\"columns\":65535,\"rows\":0}\n",
                vec![(1, 2), (65535, 0)],
            ),
            (" { \"columns\" : 1 ,\n \"rows\" : 2 } ", vec![(1, 2)]),
            ("{}", vec![(0, 0)]),
            (r#"{"rows":7}"#, vec![(0, 7)]),
            (r#"{"columns":5,"pixels":9,"columnsandmore":6}"#, vec![(5, 0)]),
        ] {
            assert_eq!(sizes(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn garbage_hides_no_object_behind_it() {
        for bad in [
            "x",
            "}",
            "{",
            "\"",
            "[[[[",
            "{\"columns\":70000}",
            "{\"columns\":-1}",
            "{\"columns\":}",
            "{\"columns\"",
            "{\"col",
            "{\"columns\":null}",
            "{\"columns\":\"5\"}",
            "\0",
        ] {
            let text = format!("{bad}\n{{\"columns\":1,\"rows\":2}}");
            assert_eq!(sizes(text.as_bytes()), [(1, 2)], "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_the_contract_writes_is_read(columns: u16, rows: u16, before: Vec<u8>) {
            let mut text = before;
            text.push(b'\n');
            text.extend(serde_json::to_vec(&WindowSize { columns, rows }).unwrap());
            let found = sizes(&text);
            proptest::prop_assert_eq!(found.last(), Some(&(columns, rows)));
        }
    }
}
