//! Regions, and the zones in them.

use aws_config::{
    environment::EnvironmentVariableRegionProvider, meta::region::ProvideRegion as _,
    profile::ProfileFileRegionProvider,
};

/// The region that AWS_REGION, AWS_DEFAULT_REGION or the profile names. Nothing is asked over the network.
pub async fn configured_region() -> Option<String> {
    let region = match EnvironmentVariableRegionProvider::new().region().await {
        Some(region) => Some(region),
        None => ProfileFileRegionProvider::new().region().await,
    };
    region.map(|region| region.to_string()).filter(|region| !region.is_empty())
}

/// The region of a zone, by its name: `us-west-2` of `us-west-2a`, of the local zone `us-west-2-lax-1a` and of the Wavelength
/// zone `us-west-2-wl1-las-wlz-1`. A region's name ends at its first number.
#[must_use]
pub fn region_of_zone(zone: &str) -> Option<String> {
    let mut parts = zone.split('-');
    let mut region: Vec<&str> = Vec::new();
    loop {
        let part = parts.next()?;
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return None;
            }
            region.push(part);
            continue;
        }
        let (number, letters) = part.split_at(digits);
        // The number is followed by the letter of a zone, or the rest of a name, and not by nothing: a region is not a zone.
        let more = parts.next().is_some();
        let zone = letters.bytes().all(|byte| byte.is_ascii_lowercase()) && (letters.len() == 1 || more);
        if region.len() < 2 || !zone {
            return None;
        }
        region.push(number);
        return Some(region.join("-"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_a_zone_is_in_its_name() {
        for (zone, region) in [
            ("us-west-2a", "us-west-2"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
            ("ap-southeast-1-bkk-1a", "ap-southeast-1"),
            ("cn-north-1a", "cn-north-1"),
            ("cn-northwest-1c", "cn-northwest-1"),
            ("us-gov-west-1b", "us-gov-west-1"),
            ("us-iso-east-1a", "us-iso-east-1"),
            ("us-isob-east-1a", "us-isob-east-1"),
            ("eu-isoe-west-1a", "eu-isoe-west-1"),
            ("eusc-de-east-1a", "eusc-de-east-1"),
            ("il-central-1a", "il-central-1"),
        ] {
            assert_eq!(region_of_zone(zone).as_deref(), Some(region), "{zone}");
        }
        for text in
            ["", "us-west-2", "usw2-az1", "west-2a", "us-west-a", "us-west-2ab", "US-west-2a", "zone-a", "-", "2a"]
        {
            assert_eq!(region_of_zone(text), None, "{text}");
        }
    }
}
