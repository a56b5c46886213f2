//! A clock that stands until it is moved, and then goes from one awaited instant to the next.
//!
//! Between two instants everything that was woken comes to rest, so that what is due at 9:00 sees 9:00 as now and its retry at 9:00:05
//! sees that. At rest is: the tasks that were woken wait for an instant that lies ahead, and nothing is under way ([`Busy`]). A task that
//! was woken and waits for something else is taken to be at rest after a moment of real time: only such a task is not waited for exactly.
//! The instant is committed before the clock stands there: after a crash it goes on, and never back.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use events::busy::Busy;
use model::{
    Status,
    clock::{Clock, Timestamp, Until},
    key,
};
use parking_lot::Mutex;
use store::{Expect, Store, Write};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    task,
};

/// How long a task that was woken and asks for no later instant is waited for.
const HAND_MAX: Duration = Duration::from_millis(100);
/// How long one that was woken and not yet run is waited for.
const WOKEN_MAX: Duration = Duration::from_secs(10);
/// What one part hands to another may be on its way: so long must nothing new have begun after something had.
const QUIET: Duration = Duration::from_millis(20);

/// See the file.
pub struct ManualClock {
    shared: Arc<Shared>,
    store: Store,
    /// One move at a time.
    moving: AsyncMutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// A task came to rest.
    rested: Notify,
}

struct State {
    now: Timestamp,
    ids: u64,
    /// By instant, and in the order in which they began to wait.
    sleepers: BTreeMap<(Timestamp, u64), Sleeper>,
    hands: HashMap<Owner, Hand>,
}

struct Sleeper {
    waker: Waker,
    owner: Owner,
}

/// Who waits: a task, or a future outside of any.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Task(task::Id),
    Alone(u64),
}

/// A task that was woken and is not at rest.
struct Hand {
    /// Its waits that have ended and that it has not seen end.
    unseen: usize,
    since: Instant,
}

impl Hand {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= if self.unseen == 0 { HAND_MAX } else { WOKEN_MAX }
    }
}

impl ManualClock {
    /// A clock that stands at `at`, which is committed.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn open(store: Store, at: Timestamp) -> Result<Self, Status> {
        let state = State { now: at, ids: 0, sleepers: BTreeMap::new(), hands: HashMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), rested: Notify::new() });
        let clock = Self { shared, store, moving: AsyncMutex::new(()) };
        clock.commit(at).await?;
        Ok(clock)
    }

    /// Moves to `to` by way of every instant that is waited for, and returns when all that was woken is at rest.
    ///
    /// Dropped on its way the clock stands where it came to.
    /// # Errors
    /// `INVALID_ARGUMENT` for an instant that is past; `FAILED_PRECONDITION` while another moves it; `INTERNAL` when the store fails.
    pub async fn advance(&self, to: Timestamp, busy: &Busy) -> Result<(), Status> {
        let _alone =
            self.moving.try_lock().map_err(|_| Status::failed_precondition("The clock is being moved by another call. Wait until that has returned."))?;
        let now = self.now();
        if to < now {
            return Err(Status::invalid(format!("{to} is past: the clock stands at {now}, and never goes back.")));
        }
        self.rest(busy).await;
        while let Some(next) = self.next().filter(|next| *next <= to) {
            self.step(next, busy).await?;
        }
        self.step(to, busy).await
    }

    /// Waits until all that was woken is at rest and nothing is under way.
    pub async fn rest(&self, busy: &Busy) {
        let begun = busy.begun();
        self.rest_once(busy).await;
        if busy.begun() == begun {
            return;
        }
        loop {
            let begun = busy.begun();
            tokio::time::sleep(QUIET).await;
            if busy.begun() == begun && busy.is_idle() {
                return;
            }
            self.rest_once(busy).await;
        }
    }

    async fn rest_once(&self, busy: &Busy) {
        loop {
            let rested = self.shared.rested.notified();
            // In this order: what is under way cannot wake a task, but a woken task begins things before it rests.
            let hands = self.shared.state.lock().hands_left(Instant::now());
            match hands {
                0 if busy.is_idle() => return,
                0 => busy.idle().await,
                _ => drop(tokio::time::timeout(HAND_MAX, rested).await),
            }
        }
    }

    async fn step(&self, to: Timestamp, busy: &Busy) -> Result<(), Status> {
        if to > self.now() {
            self.commit(to).await?;
        }
        let wakers = self.shared.state.lock().go(to);
        wakers.into_iter().for_each(Waker::wake);
        self.rest(busy).await;
        Ok(())
    }

    /// The first instant that is waited for.
    fn next(&self) -> Option<Timestamp> {
        self.shared.state.lock().sleepers.keys().next().map(|(at, _)| *at)
    }

    async fn commit(&self, at: Timestamp) -> Result<(), Status> {
        self.store.commit(vec![Write::put(key::CLOCK, Expect::Any, &at)]).await.map(drop).map_err(Status::internal)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.shared.state.lock().now
    }

    fn until(&self, at: Timestamp) -> Until {
        Box::pin(Sleep { shared: self.shared.clone(), at, id: None })
    }
}

impl State {
    /// Stands at `to`; the waits that end by it.
    fn go(&mut self, to: Timestamp) -> Vec<Waker> {
        self.now = self.now.max(to);
        let later = self.sleepers.split_off(&(to, u64::MAX));
        let woken = std::mem::replace(&mut self.sleepers, later);
        let since = Instant::now();
        woken
            .into_values()
            .map(|sleeper| {
                let hand = self.hands.entry(sleeper.owner).or_insert(Hand { unseen: 0, since });
                hand.unseen += 1;
                hand.since = since;
                sleeper.waker
            })
            .collect()
    }

    /// Tasks that are not at rest; those that take too long are no longer waited for.
    fn hands_left(&mut self, now: Instant) -> usize {
        self.hands.retain(|_, hand| !hand.is_over(now));
        self.hands.len()
    }

    /// A wait of `owner` that had ended was seen to end, or was given up.
    fn seen(&mut self, owner: Owner) {
        if let Some(hand) = self.hands.get_mut(&owner) {
            hand.unseen = hand.unseen.saturating_sub(1);
            hand.since = Instant::now();
            // Nothing else can be known of what is no task.
            if hand.unseen == 0 && matches!(owner, Owner::Alone(_)) {
                self.hands.remove(&owner);
            }
        }
    }
}

/// One wait.
struct Sleep {
    shared: Arc<Shared>,
    at: Timestamp,
    /// Since it was first asked and had to wait.
    id: Option<(u64, Owner)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        if self.at <= state.now {
            if let Some((_, owner)) = self.id.take() {
                state.seen(owner);
            }
            return Poll::Ready(());
        }
        let (id, owner) = *self.id.get_or_insert_with(|| {
            state.ids += 1;
            (state.ids, task::try_id().map_or(Owner::Alone(state.ids), Owner::Task))
        });
        state.sleepers.insert((self.at, id), Sleeper { waker: context.waker().clone(), owner });
        // It waits for what lies ahead: it has done what it was woken for, unless another of its waits has ended too.
        if state.hands.get(&owner).is_some_and(|hand| hand.unseen == 0) {
            state.hands.remove(&owner);
            shared.rested.notify_waiters();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some((id, owner)) = self.id.take() else { return };
        let mut state = self.shared.state.lock();
        if state.sleepers.remove(&(self.at, id)).is_none() {
            state.seen(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    struct World {
        _dir: tempfile::TempDir,
        store: Store,
        clock: Arc<ManualClock>,
        busy: Busy,
        seen: Arc<Mutex<Vec<String>>>,
    }

    async fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let clock = Arc::new(ManualClock::open(store.clone(), at("2026-01-01T00:00:00Z")).await.unwrap());
        World { _dir: dir, store, clock, busy: Busy::new(), seen: Arc::default() }
    }

    impl World {
        fn log(&self) -> impl Fn(&str) + Send + Clone + 'static {
            let (clock, seen) = (self.clock.clone(), self.seen.clone());
            move |what| seen.lock().push(format!("{} {what}", clock.now().strftime("%H:%M:%S")))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_woken_comes_to_rest_before_the_next_instant() {
        let world = world().await;
        // A loop: due at nine and at ten, each time with an attempt that takes real time and is tried again after five seconds.
        let (clock, busy, log) = (world.clock.clone(), world.busy.clone(), world.log());
        let (again, mut agains) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut due = vec![at("2026-01-01T10:00:00Z"), at("2026-01-01T09:00:00Z")];
            let mut retry = Timestamp::MAX;
            let mut held = Vec::new();
            loop {
                let next = due.last().copied().unwrap_or(Timestamp::MAX).min(retry);
                let mut until = clock.until(next);
                assert!(futures_util::poll!(&mut until).is_pending());
                held.clear();
                tokio::select! {
                    () = until => {
                        if clock.now() >= retry {
                            log("retried");
                            retry = Timestamp::MAX;
                        } else {
                            due.pop();
                            let (guard, clock, log, again) = (busy.begin(), clock.clone(), log.clone(), again.clone());
                            tokio::spawn(async move {
                                log("begun");
                                tokio::time::sleep(Duration::from_millis(30)).await;
                                log("failed");
                                again.send((clock.now() + Duration::from_secs(5), guard)).unwrap();
                            });
                        }
                    }
                    Some((at, guard)) = agains.recv() => {
                        retry = at;
                        held.push(guard);
                    }
                }
            }
        });
        // Begins to wait when it runs first; a clock that stands is not in a hurry.
        while world.clock.next().is_none() {
            tokio::task::yield_now().await;
        }
        world.clock.advance(at("2026-01-01T12:00:00Z"), &world.busy).await.unwrap();
        let expect = ["09:00:00 begun", "09:00:00 failed", "09:00:05 retried", "10:00:00 begun", "10:00:00 failed", "10:00:05 retried"];
        assert_eq!(*world.seen.lock(), expect);
        assert_eq!(world.clock.now(), at("2026-01-01T12:00:00Z"));
        assert_eq!(world.store.get(key::CLOCK).unwrap().unwrap().json::<Timestamp>().unwrap(), world.clock.now());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waits_end_in_the_order_of_their_instants() {
        let world = world().await;
        let mut waiting = Vec::new();
        for minute in [3, 1, 2, 2, 5] {
            let (clock, log) = (world.clock.clone(), world.log());
            let until = world.clock.until(world.clock.now() + Duration::from_secs(60 * minute));
            waiting.push(tokio::spawn(async move {
                until.await;
                log("woken");
                drop(clock);
            }));
        }
        while world.clock.shared.state.lock().sleepers.len() < 5 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(at("2026-01-01T00:04:00Z"), &world.busy).await.unwrap();
        assert_eq!(*world.seen.lock(), ["00:01:00 woken", "00:02:00 woken", "00:02:00 woken", "00:03:00 woken"]);
        // One that nobody waits for any more is forgotten.
        waiting.pop().unwrap().abort();
        while world.clock.next().is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn it_never_goes_back_and_what_is_past_is_not_waited_for() {
        let world = world().await;
        let refused = world.clock.advance(at("2025-12-31T23:59:59Z"), &world.busy).await.unwrap_err();
        assert_eq!(refused.code, model::Code::InvalidArgument);
        world.clock.until(world.clock.now()).await;
        let under_way = world.busy.begin();
        let clock = world.clock.clone();
        let busy = world.busy.clone();
        let moving = tokio::spawn(async move { clock.advance(at("2026-01-02T00:00:00Z"), &busy).await });
        tokio::task::yield_now().await;
        assert_eq!(world.clock.advance(world.clock.now(), &world.busy).await.unwrap_err().code, model::Code::FailedPrecondition);
        assert_eq!(world.clock.now(), at("2026-01-01T00:00:00Z"), "what is under way is waited for first");
        drop(under_way);
        moving.await.unwrap().unwrap();
        assert_eq!(world.clock.now(), at("2026-01-02T00:00:00Z"));
    }
}
