//! The rules by which a group merges the values of its members. Each function that takes a key accepts only keys with its own rule in
//! the list of annotations (`registry::group`), so that no key can be merged by another rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use super::{
    super::{Builder, member_spec::MemberSpec, settings::FieldRef},
    Unmerged,
};
use crate::{
    api::annotations::{
        WrittenKey,
        registry::group::{Exclusive, ExclusivePerPort, United, UnitedByKey},
    },
    diagnostics::{Code, Severity},
    model::ObservedStack,
};

/// The field of an Ingress with a setting.
#[derive(Clone, Copy)]
enum Field<'s> {
    Annotation(WrittenKey<'s>),
    /// A field of the Ingress, by its path.
    Path(&'static str),
}

/// A setting that has one value for the whole group, for a port, or for an entry of a map.
struct Setting<'s> {
    field: Field<'s>,
    /// The name of the setting in messages, with its article.
    what: &'s str,
    /// The port of the setting, if it has one.
    port: Option<u16>,
}

/// A key whose maps are merged by key, with its parameter if it has one.
#[derive(Clone, Copy)]
pub(in super::super) struct UnitedKey<'p> {
    key: UnitedByKey,
    parameter: Option<&'p str>,
}

impl From<UnitedByKey> for UnitedKey<'_> {
    fn from(key: UnitedByKey) -> Self {
        Self { key, parameter: None }
    }
}

impl<'p> UnitedKey<'p> {
    pub(super) fn with(key: UnitedByKey, parameter: &'p str) -> Self {
        Self { key, parameter: Some(parameter) }
    }

    /// Returns the key as written on an object.
    pub(super) fn written(self) -> WrittenKey<'p> {
        match self.parameter {
            Some(parameter) => self.key.key().with(parameter),
            None => self.key.key().into(),
        }
    }
}

impl<'a> Builder<'a> {
    /// Returns the value of a key on which all members that set it must agree.
    pub(in super::super) fn merge_exclusive<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: Exclusive,
        what: &str,
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let setting = Setting { field: Field::Annotation(key.into()), what, port: None };
        self.agree(specs, &setting, requested, is_current, show)
    }

    /// As [`Self::merge_exclusive`], but a value that is weak has its way over no other one, whoever requests it first, and
    /// whatever there is. Who requests it gets a warning, and everything else of it is served.
    pub(super) fn merge_exclusive_or_weak<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        (key, what): (Exclusive, &str),
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_weak: impl Fn(&T) -> bool,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let written: WrittenKey<'_> = key.into();
        let setting = Setting { field: Field::Annotation(written), what, port: None };
        let all = specs.iter().filter_map(|spec| Some((spec, requested(spec)?)));
        let (weak, strong): (Vec<_>, Vec<_>) = all.partition(|(_, value)| is_weak(value));
        if strong.is_empty() {
            return self.agree_on(&weak, &setting, |_, _| false, show);
        }
        let agreed = self.agree_on(&strong, &setting, is_current, &show)?;
        let Some((winner, value)) = strong.iter().find(|(_, value)| agreed.as_ref() == Some(value)) else {
            return Ok(agreed);
        };
        for (spec, other) in &weak {
            let place = spec.member.place_in_class(written.key());
            let place = place.unwrap_or_else(|| FieldRef::annotation(spec.member.ingress, written.key()));
            let (other, value, winner) = (show(other), show(value), winner.member.name());
            let message =
                format!("{what} should be {other}, which gives way to {value}, requested by Ingress {winner}");
            let fix = "make them agree, or put this Ingress in another group";
            self.wrong(spec.member.ingress, Code::NoEffect, &place, Severity::Warning, &message, fix);
        }
        Ok(agreed)
    }

    /// Returns the value of a key for a port, on which all members must agree that set it and listen on the port.
    pub(super) fn merge_on_port<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        (key, port): (ExclusivePerPort, u16),
        what: &str,
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let setting = Setting { field: Field::Annotation(key.into()), what, port: Some(port) };
        self.agree(specs, &setting, requested, is_current, show)
    }

    /// Returns the value of a field of Ingresses, on which all members that have it must agree.
    pub(super) fn merge_field<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        path: &'static str,
        what: &str,
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        self.agree(specs, &Setting { field: Field::Path(path), what, port: None }, requested, is_current, show)
    }

    /// Returns the union of the maps of all members. All members that set an entry must agree on its value.
    pub(in super::super) fn merge_by_key<K: Clone + Ord, V: Clone + PartialEq + Display>(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: UnitedKey<'_>,
        what: impl Fn(&K) -> String,
        of: impl Fn(&MemberSpec<'a>) -> BTreeMap<K, V>,
        is_current: impl Fn(&ObservedStack, &K, &V) -> bool,
    ) -> Result<BTreeMap<K, V>, Unmerged> {
        self.merge_entries(specs, key, |entry| (what(entry), None), of, is_current)
    }

    /// As [`Self::merge_by_key`], by the ports of listeners.
    pub(super) fn merge_by_port<V: Clone + PartialEq + Display>(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: UnitedKey<'_>,
        what: impl Fn(u16) -> String,
        of: impl Fn(&MemberSpec<'a>) -> BTreeMap<u16, V>,
        is_current: impl Fn(&ObservedStack, &u16, &V) -> bool,
    ) -> Result<BTreeMap<u16, V>, Unmerged> {
        self.merge_entries(specs, key, |port| (what(*port), Some(*port)), of, is_current)
    }

    fn merge_entries<K: Clone + Ord, V: Clone + PartialEq + Display>(
        &mut self,
        specs: &[MemberSpec<'a>],
        key: UnitedKey<'_>,
        what: impl Fn(&K) -> (String, Option<u16>),
        of: impl Fn(&MemberSpec<'a>) -> BTreeMap<K, V>,
        is_current: impl Fn(&ObservedStack, &K, &V) -> bool,
    ) -> Result<BTreeMap<K, V>, Unmerged> {
        let maps: Vec<BTreeMap<K, V>> = specs.iter().map(of).collect();
        let entries: BTreeSet<&K> = maps.iter().flat_map(BTreeMap::keys).collect();
        let mut united = BTreeMap::new();
        for entry in entries {
            let (what, port) = what(entry);
            let setting = Setting { field: Field::Annotation(key.written()), what: &what, port };
            let given = specs.iter().zip(&maps);
            let requested: Vec<(&MemberSpec<'a>, V)> =
                given.filter_map(|(spec, map)| Some((spec, map.get(entry)?.clone()))).collect();
            let value = self.agree_on(
                &requested,
                &setting,
                |observed, value| is_current(observed, entry, value),
                |value| format!("`{value}`"),
            )?;
            united.extend(value.map(|value| (entry.clone(), value)));
        }
        Ok(united)
    }

    fn agree<T: Clone + PartialEq>(
        &mut self,
        specs: &[MemberSpec<'a>],
        setting: &Setting<'_>,
        requested: impl Fn(&MemberSpec<'a>) -> Option<T>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let all: Vec<(&MemberSpec<'a>, T)> = specs.iter().filter_map(|spec| Some((spec, requested(spec)?))).collect();
        self.agree_on(&all, setting, is_current, show)
    }

    /// Returns the value on which the members that request one agree. If they disagree, an error is reported on each
    /// member whose value is not used.
    fn agree_on<T: Clone + PartialEq>(
        &mut self,
        all: &[(&MemberSpec<'a>, T)],
        setting: &Setting<'_>,
        is_current: impl Fn(&ObservedStack, &T) -> bool,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<T>, Unmerged> {
        let Some(first) = all.first() else { return Ok(None) };
        if all.iter().all(|(_, other)| *other == first.1) {
            return Ok(Some(first.1.clone()));
        }
        // Who is only served on the port until its certificate is issued comes after those who request it.
        let waits = |spec: &MemberSpec<'_>| setting.port.is_some_and(|port| spec.staying.contains_key(&port));
        let held = self.current()?.and_then(|observed| {
            let current = all.iter().filter(|(_, value)| is_current(observed, value));
            current.min_by_key(|(spec, _)| waits(spec))
        });
        let (winner, value) = held.unwrap_or(first);
        let reason = match held {
            Some(_) if waits(winner) => format!(
                "which the load balancer of the group has, and with which it serves Ingress {} until the certificate of that is issued",
                winner.member.name()
            ),
            Some(_) => {
                format!("which the load balancer of the group has, and Ingress {} requests", winner.member.name())
            }
            None => format!("requested by Ingress {}, the first of the group that requests one", winner.member.name()),
        };
        let (field, key) = match setting.field {
            Field::Annotation(written) => (written.to_string(), Some(written.key())),
            Field::Path(path) => (path.to_owned(), None),
        };
        let mut to_freeze = BTreeSet::new();
        for (spec, other) in all.iter().filter(|(_, other)| other != value) {
            let place = key.and_then(|key| spec.member.place_in_class(key));
            let message = format!(
                "{} should be {}, but a group has only one: {}, {reason}",
                setting.what,
                show(other),
                show(value)
            );
            let fix = match waits(winner) {
                false => {
                    "make them agree, or put this Ingress in another group; until then nothing of this Ingress changes"
                }
                true => {
                    "wait until that certificate is issued, which frees the port, make them agree, or put this Ingress in another group; until then nothing of this Ingress changes"
                }
            };
            match place {
                Some(place) => {
                    self.wrong(spec.member.ingress, Code::Conflict, &place, Severity::Error, &message, fix);
                }
                None => drop(self.error(spec.member.name(), Code::Conflict, &field, &message, fix)),
            }
            to_freeze.insert(spec.member.name().clone());
        }
        Err(Unmerged::Freeze(to_freeze))
    }
}

/// Returns the union of the lists of all members.
pub(super) fn merge_lists<'s, T: Clone + Ord + 's>(_: United, lists: impl Iterator<Item = &'s [T]>) -> BTreeSet<T> {
    lists.flatten().cloned().collect()
}
