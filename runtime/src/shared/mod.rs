//! Values that tasks share instead of receiving copies of them: [`Shared`], [`SharedSlice`], [`SharedSliceMut`] and [`Fd`].
//!
//! All are handles of a segment (`segment`). The calls of this library encode a handle as the identity of its segment, which travels
//! beside the bytes. Where memory cannot be shared, its contents are encoded.

mod descriptor;
mod handle;
mod slice;
mod slice_mut;
mod value;
#[cfg(feature = "ndarray")]
mod view;

pub use descriptor::Fd;
pub use slice::SharedSlice;
pub use slice_mut::{ChunksMut, LendMut, Part, SharedSliceMut};
pub use value::Shared;

#[cfg(all(test, not(loom)))]
mod tests {
    use postcard::Error;

    use super::*;

    #[test]
    fn a_handle_is_not_encoded_by_other_code() {
        let slice = SharedSlice::from_slice(&[1_u8, 2]).unwrap();
        assert_eq!(postcard::to_allocvec(&slice), Err(Error::SerdeSerCustom));
        assert_eq!(postcard::to_allocvec(&Shared::new("text").unwrap()), Err(Error::SerdeSerCustom));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(postcard::to_allocvec(&Fd::new(null)), Err(Error::SerdeSerCustom));
    }

    #[test]
    fn slices_are_made_from_anything_and_cut_anywhere() {
        let slice = SharedSlice::from_iter(100_000, 0_u32..).unwrap();
        assert!(slice.iter().copied().eq(0..100_000));
        assert_eq!(*slice.slice(..2).slice(1..), [1]);
        assert_eq!(*slice.slice(99_999..=99_999), [99_999]);
        assert_eq!(*SharedSlice::from_iter(3, [7_u16]).unwrap(), [7, 0, 0]);
        assert_eq!(SharedSlice::<f64>::zeroed(0).unwrap().len(), 0);
        assert!(SharedSlice::<u64>::zeroed(usize::MAX).is_err());
        let beyond = std::panic::catch_unwind(|| slice.slice(5..100_001));
        assert!(beyond.is_err());
    }

    #[test]
    fn a_file_becomes_a_slice_if_its_length_fits() {
        let path = std::env::temp_dir().join(format!("procession-shared-{}", std::process::id()));
        std::fs::write(&path, [1, 0, 2, 0, 3]).unwrap();
        let error = SharedSlice::<u16>::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("5 bytes are not a number of elements of 2 bytes"), "{error}");
        assert_eq!(*SharedSlice::<u8>::from_file(&path).unwrap(), [1, 0, 2, 0, 3]);
        std::fs::remove_file(&path).unwrap();
        assert!(SharedSlice::<u8>::from_file(&path).is_err());
    }

    #[test]
    fn a_value_is_what_it_was_and_its_clones_are_the_same() {
        let shared = Shared::new(&vec!["a".to_owned(), "b".to_owned()]).unwrap();
        let other = shared.clone();
        assert_eq!(*shared, ["a", "b"]);
        assert!(std::ptr::eq(&*shared, &*other));
        drop(shared);
        assert_eq!(other.len(), 2);
        assert_eq!(&*Shared::new("").unwrap(), "");
    }
}
