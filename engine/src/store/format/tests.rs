use proptest::prelude::*;

use super::*;
use crate::types::{SegmentUid, Tier};

proptest! {
    #[test]
    fn batch_survives_round_trip_and_any_flipped_bit_is_noticed(
        records in proptest::collection::vec(any::<u8>(), 0..300), topic_id: u64, number: u64, epoch: u64,
        base_index: u64, count: u32, filler: u32, timestamp_ms: u64, flip in 12usize..364,
    ) {
        let header = BatchHeader {
            crc: 0, length: records.len() as u32, uid: SegmentUid { topic_id, number }, epoch, base_index, count, filler,
            timestamp_ms,
        };
        let mut crc = Crc::new();
        crc.update(&records);
        let mut bytes = header.seal(crc).to_vec();
        bytes.extend_from_slice(&records);
        let back = BatchHeader::decode(&bytes).unwrap();
        prop_assert_eq!(BatchHeader { crc: 0, ..back }, header);
        prop_assert_eq!(back.verify(&bytes), Ok(()));
        let at = 12 + (flip - 12) % (bytes.len() - 12);
        bytes[at] ^= 0x10;
        let damaged = BatchHeader::decode(&bytes).unwrap();
        prop_assert!(damaged.verify(&bytes).is_err());
    }

    #[test]
    fn footer_and_mark_survive_round_trip(index in proptest::collection::vec(any::<(u64, u64)>(), 0..50), count: u64, data_end: u64) {
        let footer = Footer { uid: SegmentUid { topic_id: 7, number: 2 }, epoch: 3, count, data_end, entries: index.len() as u32 };
        let bytes = footer.encode(&index);
        prop_assert_eq!(bytes.len() as u64, footer.total_bytes());
        prop_assert_eq!(Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..]).unwrap(), footer);
        prop_assert_eq!(Footer::decode_index(&bytes).unwrap(), index);
        let mark = FlushedMark { position: data_end, index: count };
        prop_assert_eq!(FlushedMark::decode(&mark.encode()), mark);
    }

    #[test]
    fn a_fence_survives_round_trip_and_any_flipped_bit_is_noticed(
        topic_id: u64, number: u64, promised: u64, whole_since: u64, damaged: bool, forgotten: bool, flip in 0usize..512,
    ) {
        let entry = FenceEntry { uid: SegmentUid { topic_id, number }, promised, whole_since, damaged, forgotten };
        let mut bytes = entry.encode();
        prop_assert_eq!(FenceEntry::decode(&bytes), Ok(entry));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert!(FenceEntry::decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = (BatchHeader::decode(&bytes), Footer::decode(&bytes), Footer::decode_index(&bytes));
        let _ = (FileHeader::decode(&bytes), FlushedMark::decode(&bytes), RoundHeader::decode(&bytes), PartHeader::decode(&bytes));
    }
}

#[test]
fn file_header_of_another_version_is_named() {
    let header = FileHeader { uid: SegmentUid { topic_id: 1, number: 1 }, epoch: 1, tier: Tier::Synced };
    let mut bytes = header.encode();
    assert_eq!(FileHeader::decode(&bytes), Ok(header));
    bytes[4] = 9;
    assert_eq!(FileHeader::decode(&bytes), Err(FormatError::Version(9)));
}
