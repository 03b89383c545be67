"""Keras on torch: a callback for `fit`.

python examples/keras_fit.py
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported

import keras
import numpy as np
from fitdoctor.live.integrations.keras import FitdoctorCallback

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x = random.normal(size=(2000, 20)).astype("float32")
y = (x[:, :5] + 0.3 * random.normal(size=(2000, 5))).argmax(1)

for output in (None, "softmax"):  # the loss is given scores, and then probabilities by mistake
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(5, output, name="out"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    watch = FitdoctorCallback(logdir=f"runs/keras_{output or 'scores'}", record_every=10, stop_on=["nonfinite-loss"])
    model.fit(x[:1600], y[:1600], epochs=5, validation_data=(x[1600:], y[1600:]), callbacks=[watch], verbose=0)

    assert watch.monitor is not None
    assert watch.report is not None
    print("steps:", watch.monitor.step, "| gradient of out/kernel:", watch.monitor.last("grad_norm", "out/kernel"))
    print("found:", [d.root.rule for d in watch.report.diagnoses if str(d.root.severity) != "note"])
