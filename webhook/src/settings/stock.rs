//! Which texts are the templates of Istio's own releases.
//!
//! Istio's chart repeats them in each installation. Lateen builds what they build in code; a text that a
//! user changed has to be rendered, and only by its text can the two be told apart. Fingerprints are kept,
//! not texts. A release adds at most one line a template.

use xxhash_rust::xxh64::xxh64;

/// First and last release whose texts are known.
pub(super) const RELEASES: (&str, &str) = ("1.18", "1.31");

/// What a text under one of Istio's names is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Istio's, unchanged.
    Istio,
    /// Another one, where Lateen has a template of its own.
    InPlaceOfOurs,
    /// Another one, for pods that Istio makes of Gateway resources.
    ForGateways,
}

/// XXH64 of the texts below `istio-discovery/files` in Istio's repository, without white space at the ends
/// of lines and of the text; beside the name, what any other text is.
const TEXTS: [(&str, Origin, &[u64]); 8] = [
    (
        "sidecar",
        Origin::InPlaceOfOurs,
        &[
            0x8253_57e1_88fc_1056,
            0xdb44_91dc_4b42_bac1,
            0xa3cd_1feb_d5b7_aeb4,
            0xef96_3612_2756_6a4b,
            0x919b_057d_544c_4700,
            0x7b09_c99d_a6ee_61bb,
            0xcc58_dfba_3e50_96af,
            0x06e9_b195_abbd_6cdb,
            0xd5ca_cded_0bd8_2115,
            0xd2f3_9817_606f_820b,
            0x522e_531d_8d8f_93ec,
            0x764f_45c1_d89d_e10d,
            0x5386_e73e_afa3_06f5,
            0xb0c9_fd1e_bab3_66f6,
            0x405a_082e_3296_0897,
            0xe307_ecdd_4b00_f2cc,
            0xef5f_41ec_c6dd_7dfe,
            0xb1e0_75ff_78d5_8530,
            0x3be4_7ecb_1f0d_43e6,
            0x173e_d284_8b5e_3652,
            0x1990_db4c_8065_d48e,
            0x3268_ecc0_f0ab_b7e6,
            0xa501_7267_d2c2_9f99,
            0xb2af_aa87_5e76_5bc4,
            0x4026_0074_997f_591d,
            0xc001_d599_d76f_b8d2,
            0x5c99_2494_6da9_41d1,
            0x8eb2_5da9_05ad_157c,
            0xc1c6_d1cc_b012_0813,
        ],
    ),
    (
        "gateway",
        Origin::InPlaceOfOurs,
        &[
            0x109c_b096_3a40_1f78,
            0xeb2a_1e59_09d8_19d0,
            0xbe50_a7e4_eaaf_c748,
            0xfe0f_91a6_041c_055a,
            0x6d80_3cef_bbf3_0348,
            0x8a9e_3c6c_740d_f80c,
            0xa3ae_2872_3e78_4c32,
            0x98d0_f566_4504_97b1,
            0xd7ab_c030_0400_6797,
            0x859d_b252_b576_c1f1,
            0x8d63_4fc5_335b_4f0a,
            0x6b09_4c3c_cb54_3b9d,
            0x1229_76c2_5d48_fb1c,
            0xfc78_b513_5780_572d,
            0x1db4_78ee_bade_7fde,
            0x829a_b403_ab9d_f072,
            0x90e8_8e88_6bde_6cfb,
            0xea53_f801_34f1_f52e,
        ],
    ),
    ("grpc-simple", Origin::InPlaceOfOurs, &[0x1b7c_8cf1_8778_7f20]),
    (
        "grpc-agent",
        Origin::InPlaceOfOurs,
        &[
            0x6071_d3d6_db14_17a7,
            0x36ae_a33e_2c98_54a7,
            0x4bbc_d906_4863_a5c2,
            0xb0ab_9d52_e7a4_0852,
            0x1553_6342_a709_5d48,
            0xdef2_616d_2485_7875,
            0xc2be_9c25_238c_022b,
            0x2e81_3745_bb5b_0c61,
            0x97b6_848a_aeb4_0f00,
            0x0b90_708f_3a98_7044,
        ],
    ),
    (
        "waypoint",
        Origin::ForGateways,
        &[
            0x0852_fb62_b844_f5a4,
            0x6fdb_58dd_5135_1192,
            0x2184_7452_2821_0b16,
            0x4544_2137_d8dc_68a8,
            0xf60e_7b8d_d0a6_d301,
            0xb84b_f57e_a628_1cc6,
            0x40a8_c4b5_83ac_5449,
            0x97a5_1694_63ec_3e4c,
            0xa9df_3603_0149_5bbc,
            0x4fe1_7a3f_beb9_e5dd,
            0xb4a9_0ab0_a810_e0de,
            0xb587_faf7_6008_b985,
            0x31fb_6713_e5bd_476f,
            0x34b8_6355_f0c5_c570,
            0xc817_c6b8_f37b_9302,
            0xd7c4_372a_337d_8310,
            0x1e8d_c483_1070_f7cd,
            0x0db9_d699_2b09_68e3,
            0x032d_ea3e_caa9_7d56,
            0x2d6e_85a7_9420_56fd,
        ],
    ),
    (
        "kube-gateway",
        Origin::ForGateways,
        &[
            0xec07_9397_5418_90ee,
            0x5a4c_3996_52c8_45c8,
            0x035e_68c5_3164_7921,
            0x6a92_88d9_f50b_e3da,
            0x1fd9_284d_ab33_47ef,
            0x0ce3_48bb_137b_04cb,
            0xddb5_833e_7859_220b,
            0x5084_b0e8_9133_d272,
            0x2463_3ae9_f343_65fd,
            0x43cb_863f_926d_7e34,
            0x2b10_7899_5684_7092,
            0xea3d_f732_cfaa_c2dd,
            0x3102_cb31_b713_0bbb,
            0xc36f_ac18_feaf_0be3,
            0x4550_12ab_5f7d_bb92,
            0x346b_8e01_c678_8c1a,
            0xc771_bb31_d5e3_cda9,
            0xcde5_6119_40e3_dd24,
            0x090c_e5af_ccf9_2b3d,
            0x3cb7_7df7_7a08_cbe3,
        ],
    ),
    (
        "agentgateway",
        Origin::ForGateways,
        &[0x6ea8_aabf_0d89_4fcd, 0x96c0_8835_6497_d808, 0x81e7_7ca2_1b4a_b04c],
    ),
    ("agentgateway-waypoint", Origin::ForGateways, &[0x5abe_6a19_2e23_d9e9]),
];

/// What a text is; `None` under a name that Istio does not have.
pub(super) fn origin(name: &str, text: &str) -> Option<Origin> {
    let (_, otherwise, prints) = TEXTS.iter().find(|(known, ..)| *known == name)?;
    let istios = prints.contains(&print(text));
    Some(if istios { Origin::Istio } else { *otherwise })
}

fn print(text: &str) -> u64 {
    let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
    xxh64(lines.join("\n").as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::{Origin, origin, print};

    #[test]
    fn only_white_space_at_ends_may_differ() {
        let text = "metadata:\n  labels:\n\n    a: b";
        let moved = "\n\nmetadata:  \r\n  labels:\n\t\n    a: b\n\n";
        assert_eq!(print(moved), print(text));
        for other in ["metadata:\n labels:\n\n    a: b", "metadata:\n  labels:\n    a: b", ""] {
            assert_ne!(print(other), print(text), "{other:?}");
        }
    }

    #[test]
    fn names_are_apart() {
        assert_eq!(origin("sidecar", "spec: {}"), Some(Origin::InPlaceOfOurs));
        assert_eq!(origin("waypoint", "spec: {}"), Some(Origin::ForGateways));
        assert_eq!(origin("mine", "spec: {}"), None);
    }
}
