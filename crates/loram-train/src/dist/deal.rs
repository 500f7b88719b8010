//! Which rank does which part of the work.

/// Deals parts of these sizes to `world` ranks and returns the rank of each: the largest first, always to the rank that has
/// least so far (longest processing time first, Graham 1969). All ranks compute the same.
pub fn deal(sizes: &[usize], world: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    let (mut load, mut ranks) = (vec![0; world], vec![0; sizes.len()]);
    for i in order {
        // empty parts count a little, so that they are spread as well
        let rank = (0..world).min_by_key(|&r| load[r]).unwrap_or(0);
        ranks[i] = rank;
        load[rank] += sizes[i].max(1);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_even() {
        assert_eq!(deal(&[5, 5], 2), [0, 1]);
        assert_eq!(deal(&[1, 9, 4, 4], 2), [1, 0, 1, 1], "the long one alone");
        assert_eq!(deal(&[7], 3), [0]);
        assert_eq!(deal(&[0, 0, 0], 3), [0, 1, 2]);
        assert!(deal(&[], 4).is_empty());
        let sizes: Vec<usize> = (0..100).map(|i| 50 + (i * 37) % 90).collect();
        let ranks = deal(&sizes, 7);
        let load = |r| sizes.iter().zip(&ranks).filter(|x| *x.1 == r).map(|x| *x.0).sum::<usize>();
        let loads: Vec<usize> = (0..7).map(load).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 50, "{loads:?}");
    }
}
