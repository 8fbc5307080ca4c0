//! Sizes as Kubernetes writes them: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>; pure.

/// The bytes of a quantity such as `10Gi`, `1.5e3` or `200M`, rounded up; `None` if it is none.
pub fn bytes(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than these no API server accepts, and their product still fits.
    if number.is_empty() || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (times, divided) = factor(suffix)?;
    Some((digits * times).div_ceil(scale * divided))
}

/// What a suffix multiplies with, and what it divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10u128.pow(power), 1));
    match suffix {
        "" => decimal(0),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            decimal(power.parse().ok().filter(|power| *power <= 18)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, wanted) in [
            ("0", 0),
            ("1Ki", 1_024),
            ("1.5Gi", 3 << 29),
            ("2G", 2_000_000_000),
            ("1e3", 1_000),
            ("3E3", 3_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1500m", 2),
            (".5k", 500),
        ] {
            assert_eq!(bytes(text), Some(wanted), "{text}");
        }
        for text in [
            "",
            "Gi",
            "1Gib",
            "-1",
            "1e99",
            "1.2.3",
            "9999999999999999999",
            "1 Gi",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
