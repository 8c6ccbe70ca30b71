//! Colours. One hue per system over all charts, from the Okabe–Ito set, which people with any kind
//! of colour blindness can tell apart; every light colour has a counterpart for dark pages.

use plotters::style::RGBColor;

/// A colour on light pages, and what takes its place on dark ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tone {
    light: (u8, u8, u8),
    dark: (u8, u8, u8),
}

impl Tone {
    const fn new(light: u32, dark: u32) -> Self {
        Self { light: split(light), dark: split(dark) }
    }

    /// What is drawn; the style sheet of [`dark_css`] exchanges it on dark pages.
    pub(crate) fn rgb(self) -> RGBColor {
        RGBColor(self.light.0, self.light.1, self.light.2)
    }

    /// As in CSS.
    pub(crate) fn hex(self) -> String {
        hex(self.light)
    }

    /// On dark pages, as in CSS.
    pub(crate) fn dark_hex(self) -> String {
        hex(self.dark)
    }
}

const fn split(rgb: u32) -> (u8, u8, u8) {
    ((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8)
}

fn hex((r, g, b): (u8, u8, u8)) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// Behind everything.
pub(crate) const PAPER: Tone = Tone::new(0xFF_FF_FF, 0x15_1A_21);
/// Titles, values, dots.
pub(crate) const INK: Tone = Tone::new(0x1B_1F_24, 0xE8_EC_F1);
/// Axis labels, notes.
pub(crate) const MUTED: Tone = Tone::new(0x50_59_63, 0xA6_B0_BC);
/// Grid lines.
pub(crate) const GRID: Tone = Tone::new(0xE3_E7_EB, 0x2B_33_3D);
/// Axes.
pub(crate) const AXIS: Tone = Tone::new(0x8A_93_9D, 0x6B_76_83);
/// The ceiling.
pub(crate) const CEILING: Tone = Tone::new(0x6A_73_7E, 0x93_9E_AB);

const WALRUS: Tone = Tone::new(0x00_72_B2, 0x4F_AE_E6);
const KAFKA: Tone = Tone::new(0xD5_5E_00, 0xF5_8F_4A);
const ROCKSDB: Tone = Tone::new(0x00_9E_73, 0x3F_C6_9D);
const UPSTREAM: Tone = Tone::new(0xC0_65_9B, 0xE2_98_C4);
const OTHER: Tone = Tone::new(0x7F_6A_00, 0xD9_BF_4E);

/// The colour of a system, in every chart.
pub(crate) fn of_system(system: &str) -> Tone {
    match system {
        "walrus" | "walrus-embedded" => WALRUS,
        "kafka" | "kafka-java" => KAFKA,
        "rocksdb" => ROCKSDB,
        "upstream" => UPSTREAM,
        "raw" | "null" => CEILING,
        _ => OTHER,
    }
}

/// Rules that give a drawing its dark colours where the reader prefers dark pages. They address
/// the colours that the drawing uses, so that it stays plain SVG for programs without CSS.
pub(crate) fn dark_css() -> String {
    let tones = [PAPER, INK, MUTED, GRID, AXIS, CEILING, WALRUS, KAFKA, ROCKSDB, UPSTREAM, OTHER];
    let rules = tones.map(|tone| {
        let (light, dark) = (tone.hex(), tone.dark_hex());
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    });
    format!("@media (prefers-color-scheme:dark){{{}}}", rules.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_deployments_of_one_system_share_its_colour() {
        assert_eq!(of_system("walrus"), of_system("walrus-embedded"));
        assert_eq!(of_system("kafka"), of_system("kafka-java"));
        let different = ["walrus", "kafka", "rocksdb", "upstream", "raw"].map(of_system);
        for (i, tone) in different.iter().enumerate() {
            assert!(!different[..i].contains(tone));
        }
    }
}
