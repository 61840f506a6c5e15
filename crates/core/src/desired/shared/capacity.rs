//! The capacity that is reserved for a load balancer.

use std::collections::BTreeMap;

use crate::model::CapacityUnits;

/// The only entry of the annotations.
const ENTRY: &str = "CapacityUnits";

/// The fix of a capacity that cannot be reserved.
pub(in crate::desired) const FIX: &str = "write `CapacityUnits=<number>`; 0 ends the reservation";

/// The fix where the feature gate is off.
pub(in crate::desired) const GATE_FIX: &str =
    "start the controller with `--feature-gates=LBCapacityReservation=true`, or remove the setting";

/// The message where the feature gate is off.
pub(in crate::desired) const GATE: &str = "the controller runs with `--feature-gates=LBCapacityReservation=false`, so that the reserved capacity of the load balancer stays as it is";

/// Returns the capacity that the entries of an annotation request; `None` for no entries.
///
/// # Errors
/// When there is another entry, or a value that is not a capacity.
pub(in crate::desired) fn requested(entries: &BTreeMap<String, String>) -> Result<Option<CapacityUnits>, String> {
    if let Some(other) = entries.keys().find(|entry| *entry != ENTRY) {
        return Err(format!("`{other}` is not an entry of it"));
    }
    let Some(written) = entries.get(ENTRY) else { return Ok(None) };
    match CapacityUnits::parse(written) {
        Some(units) => Ok(Some(units)),
        None => Err(format!("`{written}` is not a number of capacity units")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let units = |number| Ok(CapacityUnits::new(number));
        let wrong = |text: &str| Err(text.to_owned());
        for (entries, expected) in [
            (&[][..], Ok(None)),
            (&[("CapacityUnits", "3000")], units(3000)),
            (&[("CapacityUnits", "0")], units(0)),
            (&[("CapacityUnits", "-1")], wrong("`-1` is not a number of capacity units")),
            (&[("CapacityUnits", "2147483648")], wrong("`2147483648` is not a number of capacity units")),
            (&[("CapacityUnits", "")], wrong("`` is not a number of capacity units")),
            (&[("CapacityUnits", "1"), ("Units", "1")], wrong("`Units` is not an entry of it")),
            (&[("capacityUnits", "1")], wrong("`capacityUnits` is not an entry of it")),
        ] {
            let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(requested(&entries), expected);
        }
    }
}
