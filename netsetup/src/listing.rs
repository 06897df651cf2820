//! What `nft list table` prints, taken apart far enough to be compared: a table is blocks (chains,
//! maps, sets), a block is lines and elements.

use std::collections::{BTreeMap, BTreeSet};

/// A chain, map or set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    /// Its declaration and its rules.
    lines: Vec<String>,
    elements: BTreeSet<String>,
}

/// The blocks of a table, by kind and name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(BTreeMap<String, Block>);

/// One thing that is in one listing only, or elsewhere in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deviation {
    /// It is not there. The kind of thing, and which.
    Missing(&'static str, String),
    /// It should not be there.
    Leftover(&'static str, String),
    /// The rules of this chain are there, in another order.
    Order(String),
}

impl Listing {
    /// Reads what nft has printed. Its indentation tells blocks from what is in them.
    pub(crate) fn parse(text: &str) -> Self {
        let mut blocks = BTreeMap::new();
        let mut name = String::new();
        let mut block = Block::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let inner = line.trim_start_matches('\t');
            match line.len() - inner.len() {
                1 if inner == "}" => {
                    blocks.insert(std::mem::take(&mut name), std::mem::take(&mut block));
                }
                1 => name = inner.trim_end_matches(" {").to_owned(),
                2 if inner.starts_with("elements = {") => {
                    let mut all = inner.trim_start_matches("elements = {").to_owned();
                    while !all.ends_with('}') {
                        let Some(more) = lines.next() else { break };
                        all.push_str(more.trim());
                    }
                    let elements = all.trim_end_matches('}').split(',').map(str::trim);
                    block.elements = elements.map(str::to_owned).collect();
                }
                2 => block.lines.push(inner.to_owned()),
                _ => {}
            }
        }
        Self(blocks)
    }

    /// Returns in what `present` differs from this.
    pub(crate) fn deviations(&self, present: &Self) -> Vec<Deviation> {
        let mut found = Vec::new();
        for (name, block) in &self.0 {
            match present.0.get(name) {
                Some(other) => block.deviations(name, other, &mut found),
                None => found.push(Deviation::Missing(kind(name), short(name).to_owned())),
            }
        }
        let unknown = present.0.keys().filter(|name| !self.0.contains_key(*name));
        found.extend(unknown.map(|name| Deviation::Leftover(kind(name), short(name).to_owned())));
        found
    }
}

impl Block {
    fn deviations(&self, name: &str, present: &Self, found: &mut Vec<Deviation>) {
        let before = found.len();
        let named = |what: &String| format!("{}: {what}", short(name));
        let missing = |kind, what| Deviation::Missing(kind, named(what));
        let leftover = |kind, what| Deviation::Leftover(kind, named(what));
        found.extend(self.elements.difference(&present.elements).map(|e| missing("element", e)));
        found.extend(present.elements.difference(&self.elements).map(|e| leftover("element", e)));
        found.extend(less(&self.lines, &present.lines).iter().map(|line| missing("rule", line)));
        found.extend(less(&present.lines, &self.lines).iter().map(|line| leftover("rule", line)));
        if found.len() == before && self.lines != present.lines {
            found.push(Deviation::Order(short(name).to_owned()));
        }
    }
}

/// Returns what is left of `all` when each of `some` has taken one away that is equal to it.
fn less<'a>(all: &'a [String], some: &[String]) -> Vec<&'a String> {
    let mut count = BTreeMap::<&str, usize>::new();
    for line in some {
        *count.entry(line).or_default() += 1;
    }
    let is_more = |line: &&String| match count.get_mut(line.as_str()) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    all.iter().filter(is_more).collect()
}

fn kind(name: &str) -> &'static str {
    match name.split(' ').next() {
        Some("chain") => "chain",
        Some("map") => "map",
        Some("set") => "set",
        Some("limit") => "limit",
        _ => "object",
    }
}

fn short(name: &str) -> &str {
    name.split_once(' ').map_or(name, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "table inet guardian {
\tmap net_in {
\t\ttype ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
\t\telements = { 192.0.2.1 . 6 . 80 : 10.254.0.2 . 8080,
\t\t\t     192.0.2.1 . 17 . 80 : 10.254.0.2 . 8080 }
\t}

\tchain input {
\t\ttype filter hook input priority 0; policy accept;
\t\tiifname \"w-*\" jump to_host
\t\tmeta l4proto { 6, 17 } th dport 53 accept
\t}
}
";

    #[test]
    fn a_table_equals_itself() {
        let table = Listing::parse(TABLE);
        assert_eq!(table.0["map net_in"].elements.len(), 2);
        assert_eq!(table.0["chain input"].lines.len(), 3);
        assert_eq!(table.deviations(&Listing::parse(TABLE)), []);
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        let table = Listing::parse(TABLE);
        let element = "192.0.2.1 . 17 . 80 : 10.254.0.2 . 8080";
        let jump = "\t\tiifname \"w-*\" jump to_host\n";
        let name = |text: &str| text.to_owned();
        for (other, want) in [
            (
                TABLE.replace("input {", "x {"),
                vec![
                    Deviation::Missing("chain", name("input")),
                    Deviation::Leftover("chain", name("x")),
                ],
            ),
            (
                TABLE.replace("17 . 80", "17 . 81"),
                vec![
                    Deviation::Missing("element", format!("net_in: {element}")),
                    Deviation::Leftover(
                        "element",
                        format!("net_in: {}", element.replace("80 :", "81 :")),
                    ),
                ],
            ),
            (
                TABLE.replace(jump, ""),
                vec![Deviation::Missing("rule", name("input: iifname \"w-*\" jump to_host"))],
            ),
            (
                TABLE.replace(jump, &jump.repeat(2)),
                vec![Deviation::Leftover("rule", name("input: iifname \"w-*\" jump to_host"))],
            ),
            (
                TABLE.replace(jump, "").replace("accept\n\t}", &format!("accept\n{jump}\t}}")),
                vec![Deviation::Order(name("input"))],
            ),
        ] {
            assert_eq!(table.deviations(&Listing::parse(&other)), want, "{other}");
        }
    }
}
