// Loaded only when a model is shown: the viewer is most of the bytes.
import "@google/model-viewer";
