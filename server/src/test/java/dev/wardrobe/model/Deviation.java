package dev.wardrobe.model;

/**
 * How far rows of logits are from the expected ones, in shares of the expected rows' spread: the
 * root mean square about each row's mean.
 *
 * @param together root mean square of the differences of all rows
 * @param row the same of the worst row
 * @param single the worst difference, of the spread of its row
 */
record Deviation(double together, double row, double single) {
  static Deviation of(float[][] expected, float[][] actual) {
    if (expected.length == 0 || expected.length != actual.length) {
      throw new IllegalArgumentException(
          "expected %d rows, got %d".formatted(expected.length, actual.length));
    }
    double errors = 0;
    double squares = 0;
    double worstRow = 0;
    double worst = 0;
    for (int row = 0; row < expected.length; row++) {
      int width = expected[row].length;
      double mean = 0;
      for (float logit : expected[row]) {
        mean += (double) logit / width;
      }
      double rowErrors = 0;
      double rowSquares = 0;
      double most = 0;
      for (int i = 0; i < width; i++) {
        double error = (double) actual[row][i] - expected[row][i];
        rowErrors += error * error;
        rowSquares += (expected[row][i] - mean) * (expected[row][i] - mean);
        most = Math.max(most, Math.abs(error));
      }
      errors += rowErrors;
      squares += rowSquares;
      worstRow = Math.max(worstRow, Math.sqrt(rowErrors / rowSquares));
      worst = Math.max(worst, most / Math.sqrt(rowSquares / width));
    }
    return new Deviation(Math.sqrt(errors / squares), worstRow, worst);
  }
}
