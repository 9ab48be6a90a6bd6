//! Numbers that claims can measure distances between.

use std::fmt::Debug;

/// A primitive number.
pub trait Number: PartialOrd + Copy + Debug {
    /// Zero.
    const ZERO: Self;

    /// Neither NaN nor infinite; always true of integers.
    fn finite(self) -> bool;

    /// True when the distance to `target` is `tolerance` or less. A NaN anywhere or a
    /// negative tolerance is never within.
    fn within(self, target: Self, tolerance: Self) -> bool;

    /// The nearest floating-point number.
    fn as_f64(self) -> f64;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const ZERO: Self = 0;

            fn finite(self) -> bool {
                true
            }

            fn within(self, target: Self, tolerance: Self) -> bool {
                let (low, high) = if self < target { (self, target) } else { (target, self) };
                // A distance that the type can't hold is larger than any tolerance.
                high.checked_sub(low).is_some_and(|distance| distance <= tolerance)
            }

            fn as_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const ZERO: Self = 0.0;

            fn finite(self) -> bool {
                self.is_finite()
            }

            fn within(self, target: Self, tolerance: Self) -> bool {
                (self - target).abs() <= tolerance
            }

            fn as_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_within_nan() {
        assert!(!1.0f64.within(f64::NAN, 1.0));
        assert!(!f64::NAN.within(1.0, 1.0));
        assert!(!1.0f64.within(1.0, f64::NAN));
        assert!(!1.0f64.within(1.0, -0.5));
    }

    #[test]
    fn far_ends_of_a_type_are_far_apart() {
        assert!(!i8::MIN.within(i8::MAX, i8::MAX));
        assert!(0u64.within(u64::MAX, u64::MAX));
    }

    proptest! {
        #[test]
        fn integers_agree_with_wider_arithmetic(a: i16, b: i16, tolerance: i16) {
            let wide = (i32::from(a) - i32::from(b)).abs() <= i32::from(tolerance);
            // A distance past i16::MAX is past every tolerance in both.
            prop_assert_eq!(a.within(b, tolerance), wide);
        }
    }
}
