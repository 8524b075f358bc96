//! The section that says which destinations may be reached.
//!
//! What the sandbox may move in all stands in `[egress]`, as what one host may stands in its rule.
//! One list stands in `[egress]` itself; where policies were joined, each list is one `[[egress.lists]]`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZero;
use std::str::FromStr;

use super::table::Table;
use super::{DocumentError, quoted};
use crate::{AddressRule, Allowlist, Budget, Egress, EgressRule, Method, ParseError, PathPattern, Reach};

/// Reads the section; what is absent takes the value of the base.
pub(super) fn read(root: &Table<'_>, base: Egress, most: Budget) -> Result<(Egress, Budget), DocumentError> {
    let Some(section) = root.section("egress")? else {
        return Ok((base, most));
    };
    section.allow_only(&KEYS)?;
    let Budget { bytes, rate } = read_budget(&section)?;
    let budget = Budget { bytes: bytes.or(most.bytes), rate: rate.or(most.rate) };
    Ok((read_reach(&section, base)?, budget))
}

fn read_reach(section: &Table<'_>, base: Egress) -> Result<Egress, DocumentError> {
    let reach = section.string("reach")?.unwrap_or_else(|| base.reach());
    let lists = section.tables("lists")?;
    if reach != Reach::Allowlist {
        for key in ["addresses", "bundles", "rules", "lists"] {
            if section.has(key) {
                return Err(section.refuse(key, "says nothing without reach = \"allowlist\""));
            }
        }
        return Ok(if reach == Reach::None { Egress::None } else { Egress::Open });
    }
    let addresses = section.string("addresses")?.unwrap_or(AddressRule::Named);
    if let Some(lists) = lists {
        for key in ["bundles", "rules"] {
            if section.has(key) {
                return Err(section.refuse(key, "stands in one of egress.lists where there are any"));
            }
        }
        let lists: Result<_, _> = lists
            .iter()
            .map(|list| {
                list.allow_only(&LIST_KEYS)?;
                read_list(list, Allowlist::default())
            })
            .collect();
        return lists.map(|lists| Egress::Allowlist { lists, addresses });
    }
    let base = match base {
        Egress::Allowlist { lists, .. } => lists.into_iter().next().unwrap_or_default(),
        Egress::None | Egress::Open => Allowlist::default(),
    };
    let list = read_list(section, base)?;
    Ok(Egress::Allowlist { lists: BTreeSet::from([list]), addresses })
}

fn read_list(table: &Table<'_>, base: Allowlist) -> Result<Allowlist, DocumentError> {
    let bundles = table.strings("bundles")?.map_or(base.bundles, |bundles| bundles.into_iter().collect());
    let rules = match table.tables("rules")? {
        None => base.rules,
        Some(rules) => rules.iter().map(read_rule).collect::<Result<_, _>>()?,
    };
    Ok(Allowlist { bundles, rules })
}

fn read_rule(table: &Table<'_>) -> Result<EgressRule, DocumentError> {
    table.allow_only(&RULE_KEYS)?;
    let host = table.string("host")?.ok_or_else(|| table.refuse("host", "is absent: write the host that is meant"))?;
    let mut rule = EgressRule::new(host);
    if let Some(ports) = table.numbers::<Port>("ports")? {
        rule = rule.with_ports(ports.into_iter().map(|port| port.0.get()));
    }
    // An empty list would read as "none" and mean "any".
    for key in ["methods", "paths", "addresses"] {
        if table.strings::<Anything>(key)?.is_some_and(|words| words.is_empty()) {
            return Err(table.refuse(key, "[] is empty: write one, or leave it out"));
        }
    }
    rule = rule
        .with_methods(table.strings::<Method>("methods")?.into_iter().flatten())
        .with_paths(table.strings::<PathPattern>("paths")?.into_iter().flatten())
        .with_budget(read_budget(table)?);
    let addresses = table.strings::<Address>("addresses")?.into_iter().flatten().map(|address| address.0);
    rule.with_addresses(addresses).map_err(|error| table.refuse("addresses", &error.to_string()))
}

fn read_budget(table: &Table<'_>) -> Result<Budget, DocumentError> {
    Ok(Budget { bytes: table.string("bytes")?, rate: table.number::<Rate>("rate")?.map(|rate| rate.0.get()) })
}

/// Writes the section, with every key that is set.
pub(super) fn write(egress: &Egress, budget: Budget, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write_section(egress, budget, text);
}

fn write_section(egress: &Egress, budget: Budget, text: &mut String) -> std::fmt::Result {
    write!(text, "\n[egress]\nreach = \"{}\"\n", egress.reach())?;
    text.push_str(&budget.document());
    let Egress::Allowlist { lists, addresses } = egress else { return Ok(()) };
    writeln!(text, "addresses = \"{addresses}\"")?;
    let mut lists = lists.iter();
    match (lists.next(), lists.len()) {
        (Some(list), 0) => write_list("egress", list, text),
        (None, _) => text.write_str("lists = []\n"),
        (Some(first), _) => std::iter::once(first).chain(lists).try_for_each(|list| {
            text.write_str("\n[[egress.lists]]\n")?;
            write_list("egress.lists", list, text)
        }),
    }
}

fn write_list(name: &str, list: &Allowlist, text: &mut String) -> std::fmt::Result {
    let Allowlist { bundles, rules } = list;
    writeln!(text, "bundles = [{}]", quoted(bundles))?;
    if rules.is_empty() {
        return text.write_str("rules = []\n");
    }
    rules.iter().try_for_each(|rule| write!(text, "\n[[{name}.rules]]\n{}", rule.document()))
}

struct Address(IpAddr);

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseError::new("an address", text, "write one as in 10.0.0.5 or fd00::5"))
    }
}

struct Port(NonZero<u16>);

impl FromStr for Port {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseError::new("a port", text, "write a whole number from 1 to 65535"))
    }
}

struct Rate(NonZero<u32>);

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseError::new("a rate", text, "write how many a minute, at least 1"))
    }
}

struct Anything;

impl FromStr for Anything {
    type Err = ParseError;

    fn from_str(_: &str) -> Result<Self, Self::Err> {
        Ok(Self)
    }
}

const KEYS: [&str; 7] = ["reach", "bytes", "rate", "addresses", "bundles", "rules", "lists"];
const LIST_KEYS: [&str; 2] = ["bundles", "rules"];
const RULE_KEYS: [&str; 7] = ["host", "ports", "methods", "paths", "addresses", "bytes", "rate"];
