package dev.wardrobe.trainer.data;

/** What was done with rows that a person may not expect; counted by rows of the files. */
enum Note {
  SPLIT(
      "conversations made into one row for each answer, since the template writes an answer"
          + " otherwise once others follow it"),
  OPENING(
      "conversations whose answers are learned with what the template writes before them, since it"
          + " writes something else when it asks for an answer"),
  GREETING("conversations that the assistant begins: what nothing precedes is not learned"),
  ENDED("rows ended with an end-of-sequence token, since the template writes none"),
  UNENDED(
      "rows that end with no end-of-sequence token, since none is known: the model does not learn"
          + " to stop"),
  EMPTY(
      "rows with an answer that is empty, or of which the template writes nothing: what is learned"
          + " is to say nothing"),
  BEGINNING("texts that begin with the beginning-of-sequence token themselves, which is not added"),
  STRADDLING(
      "rows in which a token holds both the prompt's end and the completion's beginning: end"
          + " prompts without a blank, and begin completions with it");

  private final String text;

  Note(String text) {
    this.text = text;
  }

  String text() {
    return text;
  }
}
