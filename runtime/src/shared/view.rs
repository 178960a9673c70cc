//! Shows shared elements as arrays of `ndarray`.
//!
//! A view is made of a slice, as any other. A row of one lies in shared memory, too, and is recognized there when a task is given it.

use bytemuck::Pod;
use ndarray::{ArrayView, ArrayViewMut, Dimension, ShapeError, StrideShape};

use super::{Part, SharedSlice, SharedSliceMut};

impl<T: Pod> SharedSlice<T> {
    /// Returns the elements as an array of this shape, in row-major order unless the shape says otherwise.
    ///
    /// Rows and other parts that are contiguous are not copied to workers either, as slices: `row.to_slice()`.
    ///
    /// # Errors
    ///
    /// There are fewer elements than the shape has.
    ///
    /// # Examples
    ///
    /// ```
    /// use ndarray::Axis;
    /// use procession::{Pool, SharedSlice, parallel, worker};
    ///
    /// #[worker]
    /// fn mean(row: &[f64]) -> f64 {
    ///     row.iter().sum::<f64>() / row.len() as f64
    /// }
    ///
    /// let image = SharedSlice::from_iter(6, (0..).map(f64::from))?;
    /// let image = image.view((2, 3))?;
    /// assert_eq!(image[[1, 0]], 3.0);
    ///
    /// let pool = Pool::new(2)?;
    /// let rows = image.axis_iter(Axis(0)).filter_map(|row| row.to_slice());
    /// assert_eq!(parallel!(pool = &pool; mean(row) for row in rows)?, [1.0, 4.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>, ShapeError> {
        ArrayView::from_shape(shape, self)
    }
}

impl<T: Pod> SharedSliceMut<T> {
    /// Returns the elements as an array of this shape, in row-major order unless the shape says otherwise.
    ///
    /// # Errors
    ///
    /// There are fewer elements than the shape has.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent to a task.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, SharedSliceMut, parallel, worker};
    ///
    /// #[worker]
    /// fn fill(row: &mut [u32], with: u32) {
    ///     row.fill(with);
    /// }
    ///
    /// let (rows, columns) = (3, 4);
    /// let mut table = SharedSliceMut::zeroed(rows * columns)?;
    /// let pool = Pool::new(2)?;
    /// parallel!(pool = &pool; fill(row, with) for (row, with) in table.chunks_mut(columns).zip(1..))?;
    /// assert_eq!(table.view((rows, columns))?.column(0).to_vec(), [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>, ShapeError> {
        ArrayView::from_shape(shape, self)
    }

    /// Returns the elements as an array of this shape that can be written, in row-major order unless the shape says otherwise.
    ///
    /// Tasks are lent parts of the slice, not of the array. Rows of an array are [chunks](Self::chunks_mut) of the slice.
    ///
    /// # Errors
    ///
    /// There are fewer elements than the shape has.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent to a task.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut table = procession::SharedSliceMut::zeroed(6)?;
    /// table.view_mut((2, 3))?.column_mut(1).fill(7_u8);
    /// assert_eq!(*table, [0, 7, 0, 0, 7, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view_mut<D: Dimension>(
        &mut self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayViewMut<'_, T, D>, ShapeError> {
        ArrayViewMut::from_shape(shape, self)
    }
}

impl<T: Pod> Part<'_, T> {
    /// Returns the elements as an array of this shape, as [`SharedSliceMut::view`] does.
    ///
    /// # Errors
    ///
    /// There are fewer elements than the shape has.
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>, ShapeError> {
        ArrayView::from_shape(shape, self)
    }

    /// Returns the elements as an array of this shape that can be written, as [`SharedSliceMut::view_mut`] does.
    ///
    /// # Errors
    ///
    /// There are fewer elements than the shape has.
    pub fn view_mut<D: Dimension>(
        &mut self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayViewMut<'_, T, D>, ShapeError> {
        ArrayViewMut::from_shape(shape, self)
    }
}
