//! Slow grants, late grants, and none at all. Time is tokio's, and does not pass by itself.

use std::sync::Mutex;

use tokio::time::{advance, sleep};

use super::*;

/// Follows tokio's time.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> clock::Instant {
        clock::Instant::default().plus(self.0.elapsed() + Duration::from_hours(1))
    }
}

fn start() -> (Renewal, Lease) {
    let clock: Arc<dyn Clock> = Arc::new(TestClock(Instant::now()));
    let lease = Lease::new(Arc::clone(&clock));
    (Renewal::new(clock, lease.clone()), lease)
}

async fn granted_after(delay: Duration) -> Result<(), Refused> {
    sleep(delay).await;
    Ok(())
}

/// Keeps a lease for a while, with requests that take `delay(number)`.
async fn keep(mut renewal: Renewal, delay: impl Fn(u32) -> Duration) {
    for number in 0.. {
        while renewal.next().await != Event::Due {}
        renewal.send(granted_after(delay(number)));
    }
}

const LOOK: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_node_keeps_its_lease_however_long_grants_take_up_to_its_length() {
    for delay_ms in [0, 100, 260, 310, 500, 730] {
        let (renewal, lease) = start();
        let keeper = tokio::spawn(keep(renewal, move |_| Duration::from_millis(delay_ms)));
        sleep(Duration::from_millis(delay_ms) + LOOK).await;
        for _ in 0..1000 {
            assert!(lease.is_valid(), "a grant took {delay_ms} ms");
            sleep(LOOK).await;
        }
        keeper.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_grant_counts_from_its_own_request_and_shortens_nothing() {
    let (mut renewal, lease) = start();
    renewal.send(granted_after(Duration::from_millis(600)));
    assert_eq!(renewal.next().await, Event::Due);
    renewal.send(granted_after(Duration::from_millis(10)));
    assert_eq!(renewal.next().await, Event::Granted);
    // Sent at 250 ms, granted at 260 ms.
    assert_eq!(lease.remaining_ms(), 250 + 990 - 260);
    assert_eq!(renewal.next().await, Event::Due);
    renewal.send(granted_after(Duration::from_secs(10)));
    assert_eq!(renewal.next().await, Event::Granted);
    // The first one, of 0 ms, came at 600 ms: the lease still ends with the second one's.
    assert_eq!(lease.remaining_ms(), 250 + 990 - 600);
    let (mut renewal, lease) = start();
    renewal.send(granted_after(Duration::from_millis(200)));
    assert_eq!(renewal.next().await, Event::Granted);
    assert_eq!(lease.remaining_ms(), 990 - 200);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_takes_longer_than_the_lease_is_worth_nothing() {
    let (renewal, lease) = start();
    let keeper = tokio::spawn(keep(renewal, |_| Duration::from_millis(1001)));
    for _ in 0..1000 {
        assert!(!lease.is_valid());
        sleep(LOOK).await;
    }
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_soon_made_again_unless_a_newer_one_is_on_the_way() {
    let (mut renewal, _) = start();
    let began = Instant::now();
    renewal.send(async { Err(Refused::NotLeader) });
    assert_eq!(renewal.next().await, Event::Refused);
    assert_eq!(renewal.next().await, Event::Due);
    assert_eq!(began.elapsed().as_millis(), RETRY.as_millis());
    renewal.send(async {
        sleep(RENEWAL + LOOK).await;
        Err(Refused::NotLeader)
    });
    assert_eq!(renewal.next().await, Event::Due);
    renewal.send(granted_after(Duration::from_millis(100)));
    assert_eq!(renewal.next().await, Event::Granted);
}

#[tokio::test(start_paused = true)]
async fn few_requests_are_on_the_way_at_a_time() {
    let (mut renewal, _) = start();
    let on_the_way = Arc::new(Mutex::new(()));
    let mut most = 0;
    for _ in 0..100 {
        renewal.hurry();
        assert_eq!(renewal.next().await, Event::Due);
        let held = Arc::clone(&on_the_way);
        renewal.send(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        });
        advance(Duration::from_millis(1)).await;
        most = most.max(Arc::strong_count(&on_the_way) - 1);
    }
    assert_eq!(most, ON_THE_WAY_MAX);
}
