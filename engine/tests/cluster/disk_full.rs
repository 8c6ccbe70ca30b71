//! One node's disk is full: the others go on, and it catches up once there is space.

use crate::small_disk::SmallDisk;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::under_load::UnderLoad;

/// The node with the small disk.
const SMALL: u64 = 3;
/// Rollovers that fall into the time of the full disk, so that each node's turn to lead comes.
const SEGMENTS: u64 = 12;

#[test]
fn a_node_whose_disk_is_full_holds_nobody_up() {
    let mut cluster = Cluster::prepare_here(3, &[]);
    std::fs::create_dir_all(cluster.node(SMALL).data_dir()).expect("a place to mount");
    let Some(disk) = SmallDisk::mount(&cluster.node(SMALL).data_dir()) else { return };
    cluster.start_all_fresh();
    let mut under_load = UnderLoad::start(cluster, &["segment_entries=1000"]);
    disk.fill(usize::MAX);
    (0..SEGMENTS).for_each(|_| under_load.flows());
    disk.make_space();
    under_load.recovers();
    eventually("every segment has three copies", || {
        let counted = |id: u64| Some(under_load.cluster.node(id).metrics()?["walrus"]["under_replicated"] == 0);
        under_load.cluster.ids().into_iter().all(|id| counted(id) == Some(true)).then_some(())
    });
    under_load.judge();
}
