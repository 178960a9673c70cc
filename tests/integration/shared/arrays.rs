//! Shared elements as arrays.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use procession::{Pool, SharedSlice, SharedSliceMut, parallel, worker};

use super::slices::lies_in_shared_memory;
use crate::alone::alone;

#[worker]
fn column_sums(rows: &[f64], columns: usize) -> (bool, Vec<f64>) {
    let array = ArrayView2::from_shape((rows.len() / columns, columns), rows).expect("whole rows");
    (lies_in_shared_memory(rows.as_ptr().addr()), array.sum_axis(Axis(0)).to_vec())
}

#[worker]
fn transpose(source: &[u32], columns: usize, target: &mut [u32]) {
    let rows = source.len() / columns;
    let source = ArrayView2::from_shape((rows, columns), source).expect("whole rows");
    ArrayViewMut2::from_shape((columns, rows), target).expect("as many").assign(&source.t());
}

#[test]
fn rows_of_an_array_are_not_copied_to_workers() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let slice = SharedSlice::from_iter(12, (0..).map(f64::from)).unwrap();
        let array = slice.view((4, 3)).unwrap();
        let halves = array.axis_chunks_iter(Axis(0), 2).map(|rows| rows.to_slice().unwrap());
        let sums = parallel!(pool = &pool; column_sums(rows, 3) for rows in halves).unwrap();
        assert_eq!(sums, [(true, vec![3.0, 5.0, 7.0]), (true, vec![15.0, 17.0, 19.0])]);
        assert!(slice.view((4, 4)).is_err(), "there are not as many");
    });
}

#[test]
fn an_array_shows_what_workers_have_written() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut slice = SharedSliceMut::zeroed(12).unwrap();
        slice.view_mut((2, 6)).unwrap().row_mut(1).assign(&ndarray::arr1(&[1_u32, 2, 3, 4, 5, 6]));
        let (source, mut target) = slice.split_at_mut(6);
        target.view_mut((2, 3)).unwrap()[[1, 2]] = 7;
        assert_eq!(target.view((2, 3)).unwrap().row(1).to_vec(), [4, 5, 7]);
        let copy = target.to_vec();
        parallel!(pool = &pool; transpose(&copy, 3, source) for source in [source]).unwrap();
        assert_eq!(slice.view((4, 3)).unwrap().row(0).to_vec(), [1, 4, 2]);
        assert_eq!(slice.view((4, 3)).unwrap().row(1).to_vec(), [5, 3, 7]);
    });
}
