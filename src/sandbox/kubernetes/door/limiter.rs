//! How often somebody may begin to show who he is, before anything is spent on him. Pure: it asks no clock and holds no connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many one address may begin at once after it was quiet.
pub(super) const BURST: u32 = 500;
/// Between two that it may begin after those: 100 in a second.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// Most addresses that are remembered. Each is forgotten five seconds after its last attempt at the latest.
const MOST_ADDRESSES: usize = 8192;

/// When each address would have used up what it began, at one for each interval. Who is quiet for long enough is not in it.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<IpAddr, Instant>);

impl Limiter {
    /// Whether one more may begin. What is refused counts for nothing: who goes on too fast is served at the pace that is allowed.
    pub(super) fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        let is_new = !self.0.contains_key(&from);
        if is_new && self.0.len() >= MOST_ADDRESSES {
            self.0.retain(|_, used_up| *used_up > now);
            if self.0.len() >= MOST_ADDRESSES {
                return false;
            }
        }
        let used_up = self.0.entry(from).or_insert(now);
        let next = (*used_up).max(now) + INTERVAL;
        let admitted = next.duration_since(now) <= INTERVAL * BURST;
        if admitted {
            *used_up = next;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const QUIET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_burst_and_then_so_many_in_a_second_for_each_address() {
        let (mut limiter, begun) = (Limiter::default(), Instant::now());
        let tried =
            |limiter: &mut Limiter, from, count: u32, at| (0..count).filter(|_| limiter.admit(from, at)).count();
        assert_eq!(tried(&mut limiter, LOUD, BURST * 2, begun), BURST as usize);
        assert_eq!(tried(&mut limiter, QUIET, 3, begun), 3, "another has its own");
        let second_later = begun + Duration::from_secs(1);
        assert_eq!(tried(&mut limiter, LOUD, BURST * 2, second_later), 100);
        // Refused attempts push nothing back.
        let rested = second_later + INTERVAL * BURST;
        assert_eq!(tried(&mut limiter, LOUD, BURST * 2, rested), BURST as usize);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let (mut limiter, begun) = (Limiter::default(), Instant::now());
        let address =
            |number: usize| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap()));
        for number in 0..MOST_ADDRESSES {
            assert!(limiter.admit(address(number), begun));
        }
        assert!(!limiter.admit(address(MOST_ADDRESSES), begun), "one address too many");
        assert!(limiter.admit(address(0), begun), "who is known goes on");
        assert!(limiter.admit(address(MOST_ADDRESSES), begun + INTERVAL * 2));
        assert_eq!(limiter.0.len(), 1, "who was quiet is forgotten");
    }
}
