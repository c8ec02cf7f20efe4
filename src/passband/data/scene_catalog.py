from __future__ import annotations
import hashlib, json
from pathlib import Path
import numpy as np, torch
from passband.core.store import data_folder
from passband.data.decode import read_file
from passband.data.objects import Objects
from passband.data.scenes import SceneSet
def names(data_dir=None): return ()
def is_scenes(name): return True
def load(name, split="test", *, data_dir=None, limit=None, seed=0, skip_bad=False):
    root=(data_folder() if data_dir is None else Path(data_dir))/name
    found=json.loads((root/"annotations/instances_val2017.json").read_text())
    cats=sorted(found["categories"],key=lambda c:c["id"]); place={c["id"]:i for i,c in enumerate(cats)}
    ims=sorted(found["images"],key=lambda i:i["file_name"]); by={i["id"]:[] for i in ims}
    for a in found["annotations"]: by[a["image_id"]].append(a)
    objs=[]; desc=[]
    for i in ims:
        rows=[]
        for a in by[i["id"]]:
            x,y,w,h=a["bbox"]
            rows.append((place[a["category_id"]],(max(0.,x),max(0.,y),min(float(i["width"]),x+w),min(float(i["height"]),y+h)),bool(a["iscrowd"]),float(a["area"])))
        objs.append(Objects(torch.tensor([r[1] for r in rows],dtype=torch.float32).reshape(-1,4),torch.tensor([r[0] for r in rows],dtype=torch.int64),torch.tensor([r[2] for r in rows],dtype=torch.bool),torch.tensor([r[3] for r in rows],dtype=torch.float32)))
    names_=tuple(c["name"] for c in cats)
    ids=tuple(i["file_name"] for i in ims)
    digest=hashlib.sha256(f"{name}\n{json.dumps(names_)}\n".encode())
    for id_,im,o in zip(ids,ims,objs):
        digest.update(f"{id_}\t{(root/'val2017'/id_).stat().st_size}\t{im['height']}x{im['width']}\n".encode())
        for t in (o.boxes,o.labels,o.crowd,o.areas): digest.update(np.ascontiguousarray(t.numpy()).tobytes())
    s=SceneSet(name,ids,tuple((i["height"],i["width"]) for i in ims),tuple(objs),lambda id_: read_file(root/"val2017"/id_)[0],names_,digest.hexdigest())
    return s if limit is None else s.take(limit,seed)
